use super::*;

#[test]
fn the_rules_that_are_built_in_are_rules() {
    if let Err(error) = File::parse(Path::new("rules.toml"), BUILT_IN, &[]) {
        panic!("{error}");
    }
}
