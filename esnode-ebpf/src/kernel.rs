//! Reading the kernel's structures at the offsets that the agent resolved.

use crate::tables;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use core::ptr;
use esnode_ebpf::{Account, Layout, NAME_LEN, Name, by};

const PF_EXITING: u32 = 0x0000_0004;
const PF_KTHREAD: u32 = 0x0020_0000;

/// Set by the agent before loading, and then a constant to the verifier, which removes every
/// branch that a missing field makes dead.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout::UNKNOWN;

/// Offset of a field of [`Layout`]. Volatile: the compiler must not fold in `UNKNOWN`.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a reference to a static is valid.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$field) }
    };
}
pub(crate) use offset;

/// How a pointer into the kernel is followed.
pub(crate) trait Memory {
    /// Reads a field; `T::default()` if the kernel has no such field.
    fn field<T: Copy + Default>(base: *const u8, offset: u32) -> T;
}

/// For pointers whose type the verifier knows (arguments of BTF tracepoints, the iterator's
/// task, and what is loaded from them): a plain load, which the kernel makes fault-safe.
pub(crate) struct Typed;

/// For every other pointer: by helper.
pub(crate) struct Probe;

impl Memory for Typed {
    #[inline(always)]
    fn field<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        if offset == Layout::MISSING {
            return T::default();
        }
        // SAFETY: the verifier checks the offset against the kernel's own type.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }
}

impl Memory for Probe {
    #[inline(always)]
    fn field<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        if offset == Layout::MISSING {
            return T::default();
        }
        let mut value = T::default();
        // SAFETY: the helper writes the size of the value; for an address that can't be read,
        // zeros. Its answer is left aside: a branch here doubles the verifier's paths.
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            );
        }
        value
    }
}

/// Follows a pointer field; null if it is missing or null.
#[inline(always)]
pub(crate) fn pointer<M: Memory>(base: *const u8, offset: u32) -> *const u8 {
    ptr::with_exposed_provenance(M::field::<usize>(base, offset))
}

/// The account of one task.
#[inline(always)]
pub(crate) fn task_account<M: Memory>(task: *const u8) -> Account {
    Account {
        cpu_nanoseconds: M::field(task, offset!(task_runtime)),
        disk_read_bytes: M::field(task, offset!(task_read_bytes)),
        disk_write_bytes: M::field(task, offset!(task_write_bytes)),
        disk_cancelled_write_bytes: M::field(task, offset!(task_cancelled_write_bytes)),
    }
}

/// Whether the task leads its process.
#[inline(always)]
pub(crate) fn is_leader<M: Memory>(task: *const u8) -> bool {
    M::field::<u32>(task, offset!(task_pid)) == M::field::<u32>(task, offset!(task_tgid))
}

/// Whether the task is a kernel thread.
#[inline(always)]
pub(crate) fn is_kernel_thread<M: Memory>(task: *const u8) -> bool {
    M::field::<u32>(task, offset!(task_flags)) & PF_KTHREAD != 0
}

/// Whether the task has begun to exit.
#[inline(always)]
pub(crate) fn is_exiting<M: Memory>(task: *const u8) -> bool {
    M::field::<u32>(task, offset!(task_flags)) & PF_EXITING != 0
}

/// The task's command name.
#[inline(always)]
pub(crate) fn name(task: *const u8) -> Name {
    Probe::field(task, offset!(task_comm))
}

/// The group that the process of this leader is in.
#[inline(always)]
pub(crate) fn group(leader: *const u8) -> Name {
    let signal = if offset!(groups_by) == by::ASSIGNMENT {
        pointer::<Probe>(leader, offset!(task_signal))
    } else {
        ptr::null()
    };
    group_of(leader, signal)
}

/// The group that the process of this leader, and of this `signal_struct`, is in.
#[inline(always)]
pub(crate) fn group_of(leader: *const u8, signal: *const u8) -> Name {
    match offset!(groups_by) {
        by::CGROUP => Name::of_cgroup(cgroup(leader)),
        by::ASSIGNMENT => tables::assigned(signal.expose_provenance() as u64)
            .unwrap_or_else(|| command_group(leader)),
        _ => command_group(leader),
    }
}

/// The group by the command name of a leader.
#[inline(always)]
pub(crate) fn command_group(leader: *const u8) -> Name {
    name(leader).group(is_kernel_thread::<Probe>(leader))
}

/// The number of the control group that a task is in; 0 if this kernel has none.
#[inline(always)]
pub(crate) fn cgroup(task: *const u8) -> u64 {
    if offset!(node_id) == Layout::MISSING {
        return 0;
    }
    let set = pointer::<Probe>(task, offset!(task_cgroups));
    let mut cgroup = pointer::<Probe>(set, offset!(css_set_cgroup));
    if offset!(css_cgroup) != Layout::MISSING {
        cgroup = pointer::<Probe>(cgroup, offset!(css_cgroup));
    }
    Probe::field(
        pointer::<Probe>(cgroup, offset!(cgroup_node)),
        offset!(node_id),
    )
}

/// A string in kernel memory as a name.
#[inline(always)]
pub(crate) fn name_from(string: *const u8) -> Name {
    let mut name = Name::EMPTY;
    let buffer = (&raw mut name).cast();
    // SAFETY: the helper writes at most the size of the name, and answers an error for an
    // address that can't be read.
    unsafe { bpf_probe_read_kernel_str(buffer, NAME_LEN as u32, string.cast()) };
    name
}
