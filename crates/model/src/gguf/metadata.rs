//! The metadata of a file: values by key, and getters that say what is wrong.

use std::collections::BTreeMap;

use super::GgufError;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// 8 bits, unsigned.
    U8(u8),
    /// 8 bits, signed.
    I8(i8),
    /// 16 bits, unsigned.
    U16(u16),
    /// 16 bits, signed.
    I16(i16),
    /// 32 bits, unsigned.
    U32(u32),
    /// 32 bits, signed.
    I32(i32),
    /// 32 bits, real; may be NaN or infinite.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A text.
    String(String),
    /// Values of one type.
    Array(Array),
    /// 64 bits, unsigned.
    U64(u64),
    /// 64 bits, signed.
    I64(i64),
    /// 64 bits, real; may be NaN or infinite.
    F64(f64),
}

/// An array of values of one type.
///
/// Arrays in arrays may be of different types each, and nest at most [`ARRAY_DEPTH_MAX`](super::ARRAY_DEPTH_MAX) deep.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// 8 bits, unsigned.
    U8(Vec<u8>),
    /// 8 bits, signed.
    I8(Vec<i8>),
    /// 16 bits, unsigned.
    U16(Vec<u16>),
    /// 16 bits, signed.
    I16(Vec<i16>),
    /// 32 bits, unsigned.
    U32(Vec<u32>),
    /// 32 bits, signed.
    I32(Vec<i32>),
    /// 32 bits, real; may be NaN or infinite.
    F32(Vec<f32>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    String(Strings),
    /// Arrays, of any type each.
    Array(Vec<Array>),
    /// 64 bits, unsigned.
    U64(Vec<u64>),
    /// 64 bits, signed.
    I64(Vec<i64>),
    /// 64 bits, real; may be NaN or infinite.
    F64(Vec<f64>),
}

/// Many texts in one, which takes no more memory than they take in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Where each text ends in `text`; the next one begins there.
    ends: Vec<usize>,
}

/// Metadata values by key, in the order of the keys' bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

/// The types of values, with their numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Metadata {
    /// Metadata without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an entry and returns the value that it had.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Option<Value> {
        self.0.insert(key.into(), value)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Whether there is such an entry.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A text.
    ///
    /// # Errors
    /// The entry is missing or of another type.
    pub fn string(&self, key: &str) -> Result<&str, GgufError> {
        match self.needed(key)? {
            Value::String(text) => Ok(text),
            other => Err(wrong(key, "a string", other.type_name())),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// The entry is missing or of another type.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        match self.needed(key)? {
            Value::Bool(value) => Ok(*value),
            other => Err(wrong(key, "a bool", other.type_name())),
        }
    }

    /// An integer of any width.
    ///
    /// # Errors
    /// The entry is missing, of another type, or negative.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        const EXPECTED: &str = "an integer that fits a u64";
        let value = self.needed(key)?;
        let integer = value.integer().ok_or_else(|| wrong(key, EXPECTED, value.type_name()))?;
        u64::try_from(integer).map_err(|_| wrong(key, EXPECTED, integer.to_string()))
    }

    /// A real number, which may be NaN or infinite; an `f64` is rounded to the nearest `f32`.
    ///
    /// # Errors
    /// The entry is missing or of another type.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        match self.needed(key)? {
            Value::F32(value) => Ok(*value),
            Value::F64(value) => Ok(*value as f32),
            other => Err(wrong(key, "an f32", other.type_name())),
        }
    }

    /// An array of texts.
    ///
    /// # Errors
    /// The entry is missing or of another type.
    pub fn string_array(&self, key: &str) -> Result<&Strings, GgufError> {
        match self.needed(key)? {
            Value::Array(Array::String(texts)) => Ok(texts),
            other => Err(wrong(key, "an array of string", other.type_name())),
        }
    }

    /// An array of real numbers, which may be NaN or infinite; each `f64` is rounded to the nearest `f32`.
    ///
    /// # Errors
    /// The entry is missing or of another type.
    pub fn f32_array(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        match self.needed(key)? {
            Value::Array(Array::F32(values)) => Ok(values.clone()),
            Value::Array(Array::F64(values)) => Ok(values.iter().map(|&value| value as f32).collect()),
            other => Err(wrong(key, "an array of f32", other.type_name())),
        }
    }

    /// An array of integers of any width.
    ///
    /// # Errors
    /// The entry is missing, of another type, or an integer does not fit.
    pub fn i32_array(&self, key: &str) -> Result<Vec<i32>, GgufError> {
        const EXPECTED: &str = "an array of integers that fit an i32";
        let value = self.needed(key)?;
        let integers = match value {
            Value::Array(array) => array.integers(),
            _ => None,
        };
        let integers = integers.ok_or_else(|| wrong(key, EXPECTED, value.type_name()))?;
        let fitting = integers.enumerate().map(|(index, integer)| {
            i32::try_from(integer).map_err(|_| wrong(key, EXPECTED, format!("one with {integer} at {index}")))
        });
        fitting.collect()
    }

    fn needed(&self, key: &str) -> Result<&Value, GgufError> {
        self.get(key).ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
    }
}

impl Value {
    /// The type in words, such as `u32` or `array of string`.
    pub fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {}", array.kind().name()),
            other => other.kind().name().to_owned(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
        }
    }

    fn integer(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::String(texts) => texts.len(),
            Self::Array(arrays) => arrays.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
        }
    }

    fn integers(&self) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
        fn all<T: Copy + Into<i128>>(values: &[T]) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
            Some(Box::new(values.iter().map(|&value| value.into())))
        }
        match self {
            Self::U8(values) => all(values),
            Self::I8(values) => all(values),
            Self::U16(values) => all(values),
            Self::I16(values) => all(values),
            Self::U32(values) => all(values),
            Self::I32(values) => all(values),
            Self::U64(values) => all(values),
            Self::I64(values) => all(values),
            _ => None,
        }
    }
}

impl Strings {
    /// Room for `texts` texts without allocating again for their ends.
    pub(super) fn with_capacity(texts: usize) -> Self {
        Self { text: String::new(), ends: Vec::with_capacity(texts) }
    }

    /// Adds a text at the end.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text at a position.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// The texts in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<T: AsRef<str>> FromIterator<T> for Strings {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut strings = Self::default();
        texts.into_iter().for_each(|text| strings.push(text.as_ref()));
        strings
    }
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    pub(super) fn id(self) -> u32 {
        self as u32
    }

    /// Least bytes of a value in a file: a text has at least its length, an array a type and a length.
    pub(super) fn bytes_min(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

fn wrong(key: &str, expected: &'static str, got: String) -> GgufError {
    GgufError::WrongValue { key: key.to_owned(), expected, got }
}
