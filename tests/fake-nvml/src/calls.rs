//! The functions by name, and how often each was called.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;
use std::{env, fs, thread};

use serde::Deserialize;

/// How often the file is written at most.
const PERIOD: Duration = Duration::from_millis(50);

/// Defines the functions and the names under which they are exported.
macro_rules! functions {
    ($($name:ident)*) => {
        /// A function of this library, under its name in C.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        #[expect(non_camel_case_types, reason = "names of C")]
        pub(crate) enum Function {
            $($name),*
        }

        /// Every function, in the order of the enum.
        const FUNCTIONS: &[(Function, &str)] = &[$((Function::$name, stringify!($name))),*];
    };
}

functions! {
    nvmlInit_v2
    nvmlInitWithFlags
    nvmlShutdown
    nvmlErrorString
    nvmlSystemGetDriverVersion
    nvmlSystemGetNVMLVersion
    nvmlSystemGetCudaDriverVersion
    nvmlSystemGetCudaDriverVersion_v2
    nvmlDeviceGetCount_v2
    nvmlDeviceGetHandleByIndex_v2
    nvmlDeviceGetHandleByUUID
    nvmlDeviceGetUUID
    nvmlDeviceGetName
    nvmlDeviceGetIndex
    nvmlDeviceGetMinorNumber
    nvmlDeviceGetPciInfo_v3
    nvmlDeviceGetVbiosVersion
    nvmlDeviceGetArchitecture
    nvmlDeviceGetTotalEnergyConsumption
    nvmlDeviceGetUtilizationRates
    nvmlDeviceGetEncoderUtilization
    nvmlDeviceGetDecoderUtilization
    nvmlDeviceGetMemoryInfo
    nvmlDeviceGetMemoryInfo_v2
    nvmlDeviceGetBAR1MemoryInfo
    nvmlDeviceGetTemperature
    nvmlDeviceGetTemperatureV
    nvmlDeviceGetNumFans
    nvmlDeviceGetFanSpeed
    nvmlDeviceGetFanSpeed_v2
    nvmlDeviceGetPowerUsage
    nvmlDeviceGetEnforcedPowerLimit
    nvmlDeviceGetPowerManagementLimit
    nvmlDeviceGetClockInfo
    nvmlDeviceGetMaxClockInfo
    nvmlDeviceGetPerformanceState
    nvmlDeviceGetCurrentClocksThrottleReasons
    nvmlDeviceGetCurrentClocksEventReasons
    nvmlDeviceGetSupportedClocksThrottleReasons
    nvmlDeviceGetSupportedClocksEventReasons
    nvmlDeviceGetCurrPcieLinkGeneration
    nvmlDeviceGetMaxPcieLinkGeneration
    nvmlDeviceGetCurrPcieLinkWidth
    nvmlDeviceGetMaxPcieLinkWidth
    nvmlDeviceGetPcieReplayCounter
    nvmlDeviceGetPcieThroughput
    nvmlDeviceGetTotalEccErrors
    nvmlDeviceGetMemoryErrorCounter
    nvmlDeviceGetRetiredPages_v2
    nvmlDeviceGetRemappedRows
    nvmlDeviceGetNvLinkState
    nvmlDeviceGetNvLinkErrorCounter
    nvmlDeviceGetFieldValues
    nvmlDeviceGetComputeRunningProcesses_v3
    nvmlDeviceGetGraphicsRunningProcesses_v3
    nvmlDeviceGetMPSComputeRunningProcesses_v3
    nvmlDeviceGetProcessUtilization
    nvmlDeviceGetProcessesUtilizationInfo
    nvmlEventSetCreate
    nvmlEventSetFree
    nvmlEventSetWait_v2
    nvmlDeviceRegisterEvents
    nvmlDeviceGetSupportedEventTypes
    nvmlGpmQueryDeviceSupport
    nvmlGpmSampleAlloc
    nvmlGpmSampleFree
    nvmlGpmSampleGet
    nvmlGpmMigSampleGet
    nvmlGpmMetricsGet
    nvmlDeviceGetMigMode
    nvmlDeviceGetMaxMigDeviceCount
    nvmlDeviceGetMigDeviceHandleByIndex
    nvmlDeviceIsMigDeviceHandle
    nvmlDeviceGetGpuInstanceId
    nvmlDeviceGetComputeInstanceId
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle
}

impl TryFrom<String> for Function {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = FUNCTIONS.iter().find(|(_, known)| *known == name);
        known
            .map(|&(function, _)| function)
            .ok_or_else(|| format!("this library has no function {name}"))
    }
}

/// Calls since the library was loaded, in the order of [`FUNCTIONS`].
static COUNTS: [AtomicU64; FUNCTIONS.len()] = [const { AtomicU64::new(0) }; FUNCTIONS.len()];

/// Counts a call.
pub(crate) fn record(function: Function) {
    if let Some(count) = COUNTS.get(function as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Begins to write the file, if one is wanted. Does so on a thread of its own, as the last calls
/// of a burst have to get there too.
pub(crate) fn publish() {
    static STARTED: Once = Once::new();
    if file().is_some() {
        STARTED.call_once(|| {
            thread::spawn(|| {
                loop {
                    write();
                    thread::sleep(PERIOD);
                }
            });
        });
    }
}

/// Writes the file, if one is wanted and something is new.
pub(crate) fn write() {
    static WRITTEN: Mutex<u64> = Mutex::new(0);
    let Some(path) = file() else {
        return;
    };
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    let total = COUNTS
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .sum();
    if *written == total {
        return;
    }
    let beside = path.with_extension("tmp");
    let text = serde_json::to_vec(&counts()).unwrap_or_default();
    // The folder goes away when the test is over; nobody reads the file then.
    if fs::write(&beside, text).is_ok() && fs::rename(&beside, path).is_ok() {
        *written = total;
    }
}

/// Functions that were called.
fn counts() -> BTreeMap<&'static str, u64> {
    let counts = COUNTS.iter().map(|count| count.load(Ordering::Relaxed));
    let names = FUNCTIONS.iter().map(|(_, name)| *name);
    names.zip(counts).filter(|(_, count)| *count > 0).collect()
}

/// Where the counts go.
fn file() -> Option<&'static PathBuf> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| env::var_os("FAKE_NVML_CALLS").map(PathBuf::from))
        .as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_go_by_their_names_and_are_counted() {
        for (number, &(function, name)) in FUNCTIONS.iter().enumerate() {
            assert_eq!(function as usize, number);
            assert_eq!(Function::try_from(name.to_owned()), Ok(function));
        }
        assert!(Function::try_from("nvmlDeviceGetFoo".to_owned()).is_err());
        record(Function::nvmlDeviceGetMemoryErrorCounter);
        assert_eq!(counts().get("nvmlDeviceGetMemoryErrorCounter"), Some(&1));
    }
}
