//! Fields that may hold anything: a value of the wrong kind is as good as none and never fails its whole document.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A number, where there is one.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) enum Num {
    /// A whole number.
    Whole(u64),
    /// Any other number.
    Real(f64),
    /// Something else, or nothing.
    #[default]
    None,
}

impl Num {
    /// Returns a count; nothing for fractions and negative numbers.
    pub(super) fn count(self) -> Option<u64> {
        match self {
            Num::Whole(value) => Some(value),
            Num::Real(value) if value.fract() == 0.0 && (0.0..9e15).contains(&value) => {
                Some(value as u64)
            }
            _ => None,
        }
    }

    /// Returns the number, where it is finite.
    pub(super) fn real(self) -> Option<f64> {
        match self {
            Num::Whole(value) => Some(value as f64),
            Num::Real(value) => Some(value).filter(|value| value.is_finite()),
            Num::None => None,
        }
    }
}

/// Text, where there is some.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Text(pub(super) Option<String>);

/// A list of items of one kind; nothing where there is no list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Vec::new())
    }
}

/// Block ids; whether one was no whole number.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Ids {
    /// The ids.
    pub(super) ids: Vec<u64>,
    /// Whether there was something else among them.
    pub(super) broken: bool,
}

/// Accepts every kind of value; what the visitor does not want becomes its default.
macro_rules! accept {
    ($($method:ident: $kind:ty),*) => {$(
        fn $method<E>(self, _: $kind) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    )*};
    (unit) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
    };
    (map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (seq) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Num, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Num;
            accept!(visit_bool: bool, visit_str: &str);
            accept!(unit);
            accept!(seq);
            accept!(map);
            fn visit_u64<E>(self, value: u64) -> Result<Num, E> {
                Ok(Num::Whole(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Num, E> {
                Ok(u64::try_from(value).map_or(Num::Real(value as f64), Num::Whole))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Num, E> {
                Ok(Num::Real(value))
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Text;
            accept!(visit_bool: bool, visit_f64: f64);
            accept!(unit);
            accept!(seq);
            accept!(map);
            // Session names are numbers in some traces.
            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }
            fn visit_str<E>(self, value: &str) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        struct Lists<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Lists<T> {
            type Value = List<T>;
            accept!(visit_bool: bool, visit_f64: f64, visit_u64: u64, visit_i64: i64, visit_str: &str);
            accept!(unit);
            accept!(map);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_any(Lists(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ids, D::Error> {
        struct Blocks;
        impl<'de> Visitor<'de> for Blocks {
            type Value = Ids;
            accept!(visit_bool: bool, visit_f64: f64, visit_u64: u64, visit_i64: i64, visit_str: &str);
            accept!(unit);
            accept!(map);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ids, A::Error> {
                let mut found = Ids::default();
                while let Some(id) = seq.next_element::<Id>()? {
                    match id.0 {
                        Some(id) => found.ids.push(id),
                        None => found.broken = true,
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_any(Blocks)
    }
}

/// One block id: any whole number of 64 bits, with or without a sign.
#[derive(Default)]
struct Id(Option<u64>);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Id;
            accept!(visit_bool: bool, visit_f64: f64, visit_str: &str);
            accept!(unit);
            accept!(seq);
            accept!(map);
            fn visit_u64<E>(self, value: u64) -> Result<Id, E> {
                Ok(Id(Some(value)))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Id, E> {
                Ok(Id(Some(value.cast_unsigned())))
            }
        }
        deserializer.deserialize_any(One)
    }
}
