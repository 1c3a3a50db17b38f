//! Opening NVML, and what its errors mean.

use super::facts::Driver;
use nvml_wrapper::{Nvml, error::NvmlError};
use std::{ffi::OsStr, io, path::Path};
use thiserror::Error;

/// The name that the dynamic linker looks for if nobody names a file.
const DEFAULT: &str = "libnvidia-ml.so.1";

/// Why there is no GPU to be sampled.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    /// This build can't load libraries.
    #[error(
        "this agent is a static binary, which can't load {DEFAULT} (to do: use a build for glibc)"
    )]
    Static,
    /// The file is not there, or no library.
    #[error("no NVML: {0} (to do: install the NVIDIA driver, or name the file by --nvml-library)")]
    NoLibrary(String),
    /// It is a library, but not this one.
    #[error("{library} is not NVML: {reason} (to do: name another file by --nvml-library)")]
    NotNvml {
        /// The file.
        library: String,
        /// What it lacks.
        reason: String,
    },
    /// It is there, and the driver does not answer.
    #[error("NVML does not start: {source} (to do: {})", remedy(source))]
    Driver {
        /// Its answer.
        source: NvmlError,
    },
    /// There are no devices.
    #[error("the driver knows no GPU")]
    NoDevice,
    /// There are devices, but none that is wanted.
    #[error("none of the {present} GPUs is among {wanted}")]
    NotSelected {
        /// How many there are.
        present: u32,
        /// Which are wanted.
        wanted: String,
    },
    /// A defect of the library or of its wrapper.
    #[error("opening NVML panicked: please report the lines above this in the log")]
    Panicked,
    /// The system refuses a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl OpenError {
    /// Whether a library was found, so that there should be a driver.
    #[must_use]
    pub(super) fn found_library(&self) -> bool {
        !matches!(
            self,
            Self::Static | Self::NoLibrary(_) | Self::NotNvml { .. } | Self::Thread(_)
        )
    }

    /// Whether the driver answered.
    #[must_use]
    pub(super) fn found_driver(&self) -> bool {
        matches!(self, Self::NoDevice | Self::NotSelected { .. })
    }
}

/// Loads the library and starts it.
///
/// # Errors
/// Why there is none.
pub(super) fn open(path: Option<&Path>) -> Result<Nvml, OpenError> {
    if cfg!(target_feature = "crt-static") {
        return Err(OpenError::Static);
    }
    let library = path.map_or(OsStr::new(DEFAULT), Path::as_os_str);
    let opened = Nvml::builder().lib_path(library).init();
    opened.map_err(|error| match error {
        NvmlError::LibloadingError(error) => OpenError::NoLibrary(message(&error)),
        NvmlError::FailedToLoadSymbol(reason) => OpenError::NotNvml {
            library: library.to_string_lossy().into_owned(),
            reason,
        },
        source => OpenError::Driver { source },
    })
}

/// What the dynamic linker says, in full.
fn message(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// The driver, by its own account.
#[must_use]
pub(super) fn driver(nvml: &Nvml) -> Driver {
    let cuda = nvml.sys_cuda_driver_version().ok();
    Driver {
        version: nvml.sys_driver_version().unwrap_or_default(),
        cuda_version: cuda.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
    }
}

/// What an error says of what can still be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The device or its driver will never answer this.
    Unsupported,
    /// This answer is missing, this time.
    Missing,
    /// The device is gone until the library is opened again.
    DeviceLost,
    /// The driver is gone.
    DriverLost,
}

/// What an error of a call on a device means.
#[must_use]
pub(super) fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        | NvmlError::NoPermission
        | NvmlError::InvalidArg => Meaning::Unsupported,
        NvmlError::GpuLost | NvmlError::ResetRequired => Meaning::DeviceLost,
        NvmlError::Uninitialized
        | NvmlError::DriverNotLoaded
        | NvmlError::LibRmVersionMismatch
        | NvmlError::LibraryNotFound => Meaning::DriverLost,
        _ => Meaning::Missing,
    }
}

/// What to do about an error of the start.
fn remedy(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::DriverNotLoaded => "load the driver, for example by nvidia-smi as root",
        NvmlError::NoPermission => "give access to /dev/nvidiactl and /dev/nvidia*",
        NvmlError::LibRmVersionMismatch => {
            "load the driver again, or restart: library and driver differ in version"
        }
        NvmlError::GpuLost => "see dmesg, reset the device or restart the machine",
        _ => "see what nvidia-smi says",
    }
}
