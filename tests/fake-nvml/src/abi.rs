//! The border to C: what its pointers and numbers mean. All code that follows a pointer is here.

use std::ffi::{CStr, c_char, c_uint};
use std::ptr;

use nvml_wrapper_sys::bindings as nvml;
use serde::Deserialize;

/// What a call answers: a value, or any code but `NVML_SUCCESS`.
pub(crate) type Answer<T = ()> = Result<T, Code>;

/// A code of `nvmlReturn_t`; in a script, its name in C without `NVML_ERROR_` or `NVML_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Code(nvml::nvmlReturn_t);

/// Defines the codes by their names, and a table of both.
macro_rules! codes {
    ($($name:ident = $value:ident,)*) => {
        impl Code {
            $(pub(crate) const $name: Self = Self(nvml::$value);)*
        }

        /// Every code, with its name as a script and `nvmlErrorString` have it.
        const CODES: &[(Code, &str, &CStr)] = &[$((
            Code::$name,
            stringify!($name),
            // Every name is followed by the one NUL that it needs.
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            },
        )),*];
    };
}

codes! {
    SUCCESS = nvmlReturn_enum_NVML_SUCCESS,
    UNINITIALIZED = nvmlReturn_enum_NVML_ERROR_UNINITIALIZED,
    INVALID_ARGUMENT = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
    NOT_SUPPORTED = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
    NO_PERMISSION = nvmlReturn_enum_NVML_ERROR_NO_PERMISSION,
    ALREADY_INITIALIZED = nvmlReturn_enum_NVML_ERROR_ALREADY_INITIALIZED,
    NOT_FOUND = nvmlReturn_enum_NVML_ERROR_NOT_FOUND,
    INSUFFICIENT_SIZE = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
    INSUFFICIENT_POWER = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_POWER,
    DRIVER_NOT_LOADED = nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED,
    TIMEOUT = nvmlReturn_enum_NVML_ERROR_TIMEOUT,
    IRQ_ISSUE = nvmlReturn_enum_NVML_ERROR_IRQ_ISSUE,
    LIBRARY_NOT_FOUND = nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND,
    FUNCTION_NOT_FOUND = nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
    CORRUPTED_INFOROM = nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM,
    GPU_IS_LOST = nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST,
    RESET_REQUIRED = nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED,
    OPERATING_SYSTEM = nvmlReturn_enum_NVML_ERROR_OPERATING_SYSTEM,
    LIB_RM_VERSION_MISMATCH = nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    IN_USE = nvmlReturn_enum_NVML_ERROR_IN_USE,
    MEMORY = nvmlReturn_enum_NVML_ERROR_MEMORY,
    NO_DATA = nvmlReturn_enum_NVML_ERROR_NO_DATA,
    VGPU_ECC_NOT_SUPPORTED = nvmlReturn_enum_NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
    INSUFFICIENT_RESOURCES = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES,
    FREQ_NOT_SUPPORTED = nvmlReturn_enum_NVML_ERROR_FREQ_NOT_SUPPORTED,
    ARGUMENT_VERSION_MISMATCH = nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    DEPRECATED = nvmlReturn_enum_NVML_ERROR_DEPRECATED,
    NOT_READY = nvmlReturn_enum_NVML_ERROR_NOT_READY,
    GPU_NOT_FOUND = nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND,
    INVALID_STATE = nvmlReturn_enum_NVML_ERROR_INVALID_STATE,
    RESET_TYPE_NOT_SUPPORTED = nvmlReturn_enum_NVML_ERROR_RESET_TYPE_NOT_SUPPORTED,
    UNKNOWN = nvmlReturn_enum_NVML_ERROR_UNKNOWN,
}

impl Code {
    /// As C has it.
    pub(crate) fn number(self) -> nvml::nvmlReturn_t {
        self.0
    }

    /// This code as the end of a call.
    pub(crate) fn check(self) -> Answer {
        if self == Self::SUCCESS {
            Ok(())
        } else {
            Err(self)
        }
    }

    /// The name of a code, which lives for ever.
    pub(crate) fn text(number: nvml::nvmlReturn_t) -> &'static CStr {
        let known = CODES.iter().find(|(code, ..)| code.0 == number);
        known.map_or(c"no such code", |(.., text)| text)
    }
}

impl Default for Code {
    fn default() -> Self {
        Self::SUCCESS
    }
}

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = CODES.iter().find(|(_, known, _)| *known == name);
        known
            .map(|&(code, ..)| code)
            .ok_or_else(|| format!("{name} is no code of nvmlReturn_t"))
    }
}

/// A pointer that a caller in C gave: null, or good for the reads and writes that the function is
/// documented to do.
///
/// Only C makes these, so that the promise is the caller's of an `extern "C"` function.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// What is there.
    pub(crate) fn get(self) -> Answer<T> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller lets it be read.
        Ok(unsafe { self.0.read() })
    }

    /// Puts a value there.
    pub(crate) fn set(self, value: T) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller lets it be written.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Puts a value there that the device may not have.
    pub(crate) fn give(self, value: Option<T>) -> Answer {
        self.set(value.ok_or(Code::NOT_SUPPORTED)?)
    }

    /// Changes each of so many values.
    pub(crate) fn update(self, count: usize, mut change: impl FnMut(&mut T)) -> Answer {
        for index in 0..count {
            let place = Self(self.0.wrapping_add(index));
            let mut value = place.get()?;
            change(&mut value);
            place.set(value)?;
        }
        Ok(())
    }

    /// Fills an array that has room for `capacity` values, and answers how many there are.
    pub(crate) fn fill(self, capacity: c_uint, values: &[T]) -> (c_uint, Answer) {
        let needed = c_uint::try_from(values.len()).unwrap_or(c_uint::MAX);
        if needed > 0 && (self.0.is_null() || capacity < needed) {
            return (needed, Err(Code::INSUFFICIENT_SIZE));
        }
        if needed > 0 {
            // SAFETY: not null, so the caller lets `capacity` values be written, which is enough;
            // they don't overlap with ours.
            unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.0, values.len()) };
        }
        (needed, Ok(()))
    }

    /// Whether there is nothing to write to.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl Out<c_char> {
    /// Puts a text there, with its NUL, into a buffer of so many bytes.
    pub(crate) fn text(self, length: c_uint, text: &str) -> Answer {
        if self.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let chars: Vec<c_char> = chars(text).chain([0]).collect();
        self.fill(length, &chars).1
    }
}

/// The bytes of a text as C has them.
fn chars(text: &str) -> impl Iterator<Item = c_char> {
    text.bytes().map(|byte| c_char::from_ne_bytes([byte]))
}

/// A text in an array of this size, cut so that a NUL remains.
pub(crate) fn array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    let room = N.saturating_sub(1);
    for (place, char) in array.iter_mut().take(room).zip(chars(text)) {
        *place = char;
    }
    array
}

/// A text that a caller in C gave.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    /// The text itself.
    pub(crate) fn get(&self) -> Answer<&str> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so it is a string that ends, for the time of the call.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::INVALID_ARGUMENT)
    }
}

/// `NVML_STRUCT_VERSION`: what the first field of a `T` says.
pub(crate) fn struct_version<T>(version: c_uint) -> c_uint {
    let size = c_uint::try_from(size_of::<T>()).unwrap_or(0);
    size | version << 24
}

/// Fails unless the caller has the version of a struct that this library has.
pub(crate) fn check_version(given: c_uint, wanted: c_uint) -> Answer {
    if given == wanted {
        Ok(())
    } else {
        Err(Code::ARGUMENT_VERSION_MISMATCH)
    }
}

/// An `nvmlDevice_t`: a GPU by its index, or a slot for a MIG device on it. A number, no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Handle(usize);

impl Handle {
    /// Slots per GPU, the one for the GPU itself included.
    const SLOTS: usize = 0x100;

    /// The GPU with this index.
    pub(crate) fn gpu(index: usize) -> Self {
        Self((index + 1) * Self::SLOTS)
    }

    /// The MIG device in this slot of it.
    pub(crate) fn mig(index: usize, slot: usize) -> Self {
        Self((index + 1) * Self::SLOTS + slot + 1)
    }

    /// Index of the GPU, and the slot of a MIG device.
    pub(crate) fn parts(self) -> Answer<(usize, Option<usize>)> {
        let index = (self.0 / Self::SLOTS).checked_sub(1);
        let slot = (self.0 % Self::SLOTS).checked_sub(1);
        Ok((index.ok_or(Code::INVALID_ARGUMENT)?, slot))
    }

    /// As the structs of the bindings have it.
    pub(crate) fn pointer(self) -> nvml::nvmlDevice_t {
        ptr::without_provenance_mut(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_tell_gpus_from_mig_devices() {
        assert_eq!(Handle::gpu(0).parts(), Ok((0, None)));
        assert_eq!(Handle::gpu(7).parts(), Ok((7, None)));
        assert_eq!(Handle::mig(7, 0).parts(), Ok((7, Some(0))));
        assert_eq!(Handle::mig(0, 6).parts(), Ok((0, Some(6))));
        assert_eq!(Handle(0).parts(), Err(Code::INVALID_ARGUMENT));
        assert!(!Handle::gpu(0).pointer().is_null());
    }

    #[test]
    fn codes_go_by_the_names_of_the_header() {
        assert_eq!(
            Code::try_from("GPU_IS_LOST".to_owned()),
            Ok(Code::GPU_IS_LOST)
        );
        assert_eq!(Code::GPU_IS_LOST.number(), 15);
        assert_eq!(Code::UNKNOWN.number(), 999);
        assert_eq!(Code::text(9), c"DRIVER_NOT_LOADED");
        assert!(Code::try_from("NVML_SUCCESS".to_owned()).is_err());
    }

    #[test]
    fn an_array_is_filled_or_its_size_asked_for() {
        let mut places = [0_u32; 3];
        let array = Out(places.as_mut_ptr());
        assert_eq!(array.fill(1, &[7, 8]), (2, Err(Code::INSUFFICIENT_SIZE)));
        assert_eq!(array.fill(3, &[7, 8]), (2, Ok(())));
        assert_eq!(places, [7, 8, 0]);
        let null = Out::<u32>(ptr::null_mut());
        assert_eq!(null.fill(0, &[]), (0, Ok(())));
        assert_eq!(null.fill(9, &[7]), (1, Err(Code::INSUFFICIENT_SIZE)));
        assert_eq!(null.set(7), Err(Code::INVALID_ARGUMENT));
    }

    #[test]
    fn texts_keep_their_end() {
        let bytes = |chars: [c_char; 4]| chars.map(|char| char.to_ne_bytes()[0]);
        assert_eq!(bytes(array::<4>("abcdef")), *b"abc\0");
        assert_eq!(bytes(array::<4>("a")), *b"a\0\0\0");
    }

    #[test]
    fn struct_versions_are_those_of_the_header() {
        // nvmlMemory_v2 in nvml.h: sizeof is 40.
        assert_eq!(struct_version::<nvml::nvmlMemory_v2_t>(2), 0x0200_0028);
    }
}
