//! Which columns fit a width, and how much of it each gets.

use super::column::Column;

/// All that a very wide screen shows.
const ALL: [Column; 17] = [
    Column::Pid,
    Column::User,
    Column::Engine,
    Column::Role,
    Column::Model,
    Column::Gpu,
    Column::GpuPercent,
    Column::GpuMemory,
    Column::Watts,
    Column::CpuPercent,
    Column::Rss,
    Column::DiskRead,
    Column::DiskWrite,
    Column::NetworkReceive,
    Column::NetworkTransmit,
    Column::Container,
    Column::Command,
];

/// What gives way on a narrower screen, in this order: these columns, for this one or none.
const REDUCTIONS: [(&[Column], Option<Column>); 12] = [
    (&[Column::Container], None),
    (&[Column::User], None),
    (&[Column::DiskRead, Column::DiskWrite], Some(Column::Disk)),
    (
        &[Column::NetworkReceive, Column::NetworkTransmit],
        Some(Column::Network),
    ),
    (&[Column::Model, Column::Command], Some(Column::What)),
    (&[Column::Role], None),
    (&[Column::Disk], None),
    (&[Column::Network], None),
    (&[Column::Gpu], None),
    (&[Column::Rss], None),
    (&[Column::Engine], None),
    (&[Column::Watts], None),
];

/// The columns that fit a width, each with its share of it. `widest` tells how many columns of
/// the screen the widest text in one has.
pub(super) fn layout(width: u16, gpus: bool, widest: impl Fn(Column) -> u16) -> Vec<(Column, u16)> {
    let mut columns: Vec<_> = ALL
        .into_iter()
        .filter(|column| gpus || !column.needs_gpus())
        .collect();
    let mut reductions = REDUCTIONS.iter();
    while needed(&columns) > width {
        let Some((gone, instead)) = reductions.next() else {
            break;
        };
        let at = columns.iter().position(|column| gone.contains(column));
        let last = columns.iter().rposition(|column| gone.contains(column));
        // A name stands at the end, where the longest ones need not be cut.
        let place = if *instead == Some(Column::What) {
            last
        } else {
            at
        };
        if let (Some(place), Some(instead)) = (place, instead)
            && let Some(slot) = columns.get_mut(place)
        {
            *slot = *instead;
        }
        columns.retain(|column| !gone.contains(column));
    }
    let mut spare = width.saturating_sub(needed(&columns));
    let mut shares: Vec<_> = columns
        .iter()
        .map(|column| (*column, column.width()))
        .collect();
    let wanted: Vec<_> = columns
        .iter()
        .map(|column| widest(*column).min(column.most()))
        .collect();
    // One column of the screen after the other, so that all grow alike.
    loop {
        let before = spare;
        for ((_, share), wanted) in shares.iter_mut().zip(&wanted) {
            if *share < *wanted && spare > 0 {
                *share += 1;
                spare -= 1;
            }
        }
        if spare == before {
            break;
        }
    }
    if let Some((_, share)) = shares.last_mut() {
        *share += spare;
    }
    shares
}

/// The columns of the screen that these need, with a space between them.
fn needed(columns: &[Column]) -> u16 {
    let widths: u16 = columns.iter().map(|column| column.width() + 1).sum();
    widths.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(width: u16) -> Vec<Column> {
        let shares = layout(width, true, |_| 100);
        let used: u16 = shares.iter().map(|(_, share)| share + 1).sum();
        assert!(used <= width + 1, "{used} of {width}");
        shares.into_iter().map(|(column, _)| column).collect()
    }

    #[test]
    fn eighty_columns_show_each_kind_of_usage() {
        assert_eq!(
            columns(79),
            [
                Column::Pid,
                Column::Engine,
                Column::Gpu,
                Column::GpuPercent,
                Column::GpuMemory,
                Column::Watts,
                Column::CpuPercent,
                Column::Rss,
                Column::Disk,
                Column::Network,
                Column::What,
            ]
        );
        assert_eq!(columns(199), ALL);
        assert!(columns(40).contains(&Column::Pid));
    }

    #[test]
    fn a_node_without_gpus_has_no_columns_of_them() {
        assert!(
            layout(199, false, |_| 100)
                .iter()
                .all(|(column, _)| !column.needs_gpus())
        );
    }

    #[test]
    fn names_get_what_they_need_and_the_last_gets_the_rest() {
        let columns = layout(300, true, |column| match column {
            Column::Model => 33,
            Column::Rss => 99,
            _ => 5,
        });
        let share = |column| {
            let mut columns = columns.iter();
            columns
                .find(|(other, _)| *other == column)
                .map(|(_, share)| *share)
        };
        assert_eq!(share(Column::Rss), Some(5));
        assert_eq!(share(Column::Model), Some(33));
        assert_eq!(share(Column::Container), Some(15));
        assert!(share(Column::Command) > Some(100));
    }
}
