//! Fields that are read when they have the expected type and are absent otherwise, so that one odd field of a new
//! agent version does not cost the whole record. Nothing here allocates unless a string holds escapes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A string, or nothing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Text<'a>(pub(crate) Option<Cow<'a, str>>);

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn some(&self) -> Option<&str> {
        self.0.as_deref().filter(|s| !s.is_empty())
    }
}

/// A boolean; false otherwise.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Flag(pub(crate) bool);

/// A number that is not negative, or nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Number(pub(crate) Option<f64>);

impl Number {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    pub(crate) fn count(self) -> u64 {
        self.0.unwrap_or_default() as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    pub(crate) fn millis(self) -> Option<i64> {
        self.0.map(|n| n as i64)
    }
}

/// An object, or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Object<T>(pub(crate) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Object(None)
    }
}

/// A list of objects or one string; what is neither is empty.
#[derive(Debug, Clone)]
pub(crate) enum Content<'a, T> {
    Text(Cow<'a, str>),
    List(Vec<T>),
}

impl<T> Default for Content<'_, T> {
    fn default() -> Self {
        Content::List(Vec::new())
    }
}

/// The keys of an object; bounded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Keys(pub(crate) Vec<String>);

const KEYS: usize = 16;

macro_rules! ignore {
    ($($method:ident: $ty:ty),+ $(,)?) => {
        $(fn $method<E>(self, _: $ty) -> Result<Self::Value, E> { Ok(Self::Value::default()) })+
    };
}

macro_rules! ignore_nothing {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

macro_rules! drain_seq {
    () => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

macro_rules! drain_map {
    () => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for V<'a> {
            type Value = Text<'a>;
            ignore_nothing!();
            ignore!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64);
            drain_seq!();
            drain_map!();
            fn visit_borrowed_str<E>(self, s: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Some(Cow::Borrowed(s))))
            }
            fn visit_str<E>(self, s: &str) -> Result<Text<'a>, E> {
                Ok(Text(Some(Cow::Owned(s.to_owned()))))
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Flag;
            ignore_nothing!();
            ignore!(visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
            drain_seq!();
            drain_map!();
            fn visit_bool<E>(self, b: bool) -> Result<Flag, E> {
                Ok(Flag(b))
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Number;
            ignore_nothing!();
            ignore!(visit_bool: bool, visit_i64: i64, visit_str: &str);
            drain_seq!();
            drain_map!();
            #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds are far below 2^52")]
            fn visit_u64<E>(self, n: u64) -> Result<Number, E> {
                Ok(Number(Some(n as f64)))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Number, E> {
                Ok(Number((n >= 0.0).then_some(n)))
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = Object<T>;
            ignore_nothing!();
            ignore!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
            drain_seq!();
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|t| Object(Some(t)))
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Content<'a, T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<'a, T>(PhantomData<(&'a (), T)>);
        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for V<'a, T> {
            type Value = Content<'a, T>;
            ignore_nothing!();
            ignore!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64);
            drain_map!();
            fn visit_borrowed_str<E>(self, s: &'de str) -> Result<Content<'a, T>, E> {
                Ok(Content::Text(Cow::Borrowed(s)))
            }
            fn visit_str<E>(self, s: &str) -> Result<Content<'a, T>, E> {
                Ok(Content::Text(Cow::Owned(s.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content<'a, T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element::<Object<T>>()? {
                    list.extend(element.0);
                }
                Ok(Content::List(list))
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Keys;
            ignore_nothing!();
            ignore!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
            drain_seq!();
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, _)) = map.next_entry::<Cow<'_, str>, IgnoredAny>()? {
                    if keys.len() < KEYS {
                        keys.push(key.into_owned());
                    }
                }
                Ok(Keys(keys))
            }
        }
        d.deserialize_any(V)
    }
}
