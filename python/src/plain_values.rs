//! Results that are a number, a short text, `None` or a bool, as pickles that are written and read here.
//!
//! `pickle.dumps` and `pickle.loads` cost more than the rest of a short call of a chunk. What is written here is a pickle as any
//! other, so whatever reads it may use `pickle.loads`; what is read here are the pickles that are written here, and everything else is
//! left to `pickle.loads`. Only exact types: a subclass may have a state.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

/// Protocol 5; what follows is one opcode with its argument, and the stop.
const BEGIN: [u8; 2] = [0x80, 5];
const STOP: u8 = b'.';
const NONE: u8 = b'N';
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const INT4: u8 = b'J';
const LONG: u8 = 0x8a;
const FLOAT: u8 = b'G';
const TEXT: u8 = 0x8c;
/// The longest text, in bytes of UTF-8.
const TEXT_MAX: usize = 200;

/// A pickle of a plain value.
#[derive(Debug)]
pub(crate) struct PlainPickle {
    bytes: [u8; TEXT_MAX + 8],
    length: usize,
}

impl PlainPickle {
    fn of(opcode: u8, parts: [&[u8]; 2]) -> Self {
        let mut made = Self { bytes: [0; TEXT_MAX + 8], length: 0 };
        for part in [&BEGIN[..], &[opcode], parts[0], parts[1], &[STOP]] {
            made.bytes[made.length..made.length + part.len()].copy_from_slice(part);
            made.length += part.len();
        }
        made
    }

    /// The pickle of a value; `None`: it is no plain one.
    pub(crate) fn write(value: &Bound<'_, PyAny>) -> Option<Self> {
        if value.is_exact_instance_of::<PyInt>() {
            let number = value.extract::<i64>().ok()?;
            return Some(match i32::try_from(number) {
                Ok(short) => Self::of(INT4, [&short.to_le_bytes(), &[]]),
                Err(_) => Self::of(LONG, [&[8], &number.to_le_bytes()]),
            });
        }
        if value.is_none() {
            return Some(Self::of(NONE, [&[], &[]]));
        }
        if let Ok(float) = value.cast_exact::<PyFloat>() {
            return Some(Self::of(FLOAT, [&float.value().to_be_bytes(), &[]]));
        }
        if let Ok(flag) = value.cast_exact::<PyBool>() {
            return Some(Self::of(if flag.is_true() { TRUE } else { FALSE }, [&[], &[]]));
        }
        let text = value.cast_exact::<PyString>().ok()?.to_str().ok()?;
        let length = u8::try_from(text.len()).ok().filter(|_| text.len() <= TEXT_MAX)?;
        Some(Self::of(TEXT, [&[length], text.as_bytes()]))
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The value of a pickle that was written here; `None`: it is another one.
pub(crate) fn read<'py>(py: Python<'py>, pickle: &[u8]) -> Option<Bound<'py, PyAny>> {
    let (opcode, argument) = pickle.strip_prefix(&BEGIN)?.strip_suffix(&[STOP])?.split_first()?;
    match (*opcode, argument) {
        (NONE, []) => Some(py.None().into_bound(py)),
        (TRUE | FALSE, []) => Some(PyBool::new(py, *opcode == TRUE).to_owned().into_any()),
        (INT4, _) => int(py, i64::from(i32::from_le_bytes(argument.try_into().ok()?))),
        (LONG, [8, number @ ..]) => int(py, i64::from_le_bytes(number.try_into().ok()?)),
        (FLOAT, _) => Some(PyFloat::new(py, f64::from_be_bytes(argument.try_into().ok()?)).into_any()),
        (TEXT, [length, text @ ..]) if usize::from(*length) == text.len() => {
            Some(PyString::new(py, std::str::from_utf8(text).ok()?).into_any())
        }
        _ => None,
    }
}

fn int(py: Python<'_>, number: i64) -> Option<Bound<'_, PyAny>> {
    let Ok(made) = number.into_pyobject(py);
    Some(made.into_any())
}
