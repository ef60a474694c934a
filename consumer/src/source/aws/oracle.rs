//! Answers by chance, and the SDK's decoder as the judge of what is read of them in place.

use std::fmt;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, Output,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use fastrand::Rng;

/// What the SDK decodes of a body; `None` if that is an error.
pub(in crate::source) type Sdk<'a> = &'a dyn Fn(&Bytes) -> Option<Output>;

/// Runs a test in the middle of a call, where the SDK's decoder has its settings.
pub(in crate::source) struct Judge<P, F> {
    pub(in crate::source) operation: P,
    pub(in crate::source) test: F,
}

impl<P, F> fmt::Debug for Judge<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl<P: RuntimePlugin, F: Fn(Sdk<'_>) + Send + Sync> Intercept for Judge<P, F> {
    fn name(&self) -> &'static str {
        "Judge"
    }

    fn read_before_deserialization(
        &self,
        _context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let layer = self.operation.config().unwrap();
        let sdk = layer.load::<SharedResponseDeserializer>().unwrap();
        (self.test)(&|body| {
            let response = HttpResponse::new(200.try_into().unwrap(), SdkBody::from(body.clone()));
            sdk.deserialize_nonstreaming_with_config(&response, bag).ok()
        });
        Ok(())
    }
}

/// How many answers a test compares: `SHARDMILL_TEST_ANSWERS`, or so many.
fn answers(otherwise: usize) -> usize {
    let given = std::env::var("SHARDMILL_TEST_ANSWERS").ok();
    given.map_or(otherwise, |text| text.parse().expect("SHARDMILL_TEST_ANSWERS is a number"))
}

/// Compares so many answers by chance, or as many as the environment says; at least a quarter must be read in place.
pub(in crate::source) fn by_chance(
    otherwise: usize,
    answer: impl Fn(&mut Chance) -> Bytes,
    is_in_place: impl Fn(&Bytes) -> bool,
) {
    let mut chance = Chance::new();
    let count = answers(otherwise);
    let in_place = (0..count).filter(|_| is_in_place(&answer(&mut chance))).count();
    assert!(in_place * 4 > count, "{in_place} of {count} were read in place");
}

/// Compares a whole answer, which is read in place, with all that a cut or a changed byte makes of it. What is cut is
/// never read in place, but for the blank at the end.
pub(in crate::source) fn cut_and_changed(text: &'static [u8], is_in_place: impl Fn(&Bytes) -> bool) {
    assert!(is_in_place(&Bytes::from_static(text)));
    for at in 0..text.len() {
        assert!(at == text.len() - 1 || !is_in_place(&Bytes::copy_from_slice(&text[..at])), "cut at {at}");
        for byte in [0, b'"', b'\\', b'0', b'}', b',', 0xff] {
            let mut changed = text.to_vec();
            changed[at] = byte;
            is_in_place(&changed.into());
        }
    }
}

/// Makes JSON by chance; about half of its answers have nothing odd.
pub(in crate::source) struct Chance {
    pub(in crate::source) rng: Rng,
    /// One of so many places has something odd.
    rarity: u32,
}

impl Chance {
    pub(in crate::source) fn new() -> Self {
        let given = std::env::var("SHARDMILL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(30);
        println!("SHARDMILL_TEST_SEED={seed}");
        Self { rng: Rng::with_seed(seed), rarity: 60 }
    }

    pub(in crate::source) fn odd(&mut self) -> bool {
        self.rng.u32(0..self.rarity) == 0
    }

    pub(in crate::source) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(0..of.len())]
    }

    /// A string with its quotes.
    pub(in crate::source) fn string(&mut self) -> String {
        let plain = ["a", "Z", "0", " ", "-", "\u{e9}", "\u{1f600}", "/", "key"];
        let escaped = [r#"\""#, r"\\", r"\/", r"\n", r"\t", r"\b", r"\u00e9", r"\u0000", r"\ud83d\ude00"];
        let wrong = [r"\ud83d", r"\ude00", r"\x", r"\u12", "\u{1}", "\n", r"\ud83d\u0041"];
        let mut text = String::from("\"");
        let has_escapes = self.rng.u8(0..8) == 0;
        for _ in 0..self.rng.usize(0..6) {
            let piece = if self.odd() {
                self.pick(&wrong)
            } else if has_escapes {
                self.pick(&escaped)
            } else {
                self.pick(&plain)
            };
            text.push_str(piece);
        }
        text.push('"');
        text
    }

    pub(in crate::source) fn base64(&mut self) -> String {
        let mut bytes = vec![0; self.rng.usize(0..40)];
        self.rng.fill(&mut bytes);
        let mut text = aws_smithy_types::base64::encode(bytes);
        if self.odd() {
            let wrong = ["!", "=", "A", "AA==", r"\/", " ", "\u{e9}", "A=A=", "AB=="];
            text.insert_str(0, self.pick(&wrong));
        } else if self.odd() {
            text.pop();
        }
        format!("\"{text}\"")
    }

    pub(in crate::source) fn seconds(&mut self) -> String {
        let usual =
            ["1790000000.123", "1.790000000123E9", "1790000000", "1.79E9", "1790000000.999", "0", "0.5"];
        if self.odd() {
            let odd =
                ["-1.5", "1e300", "01", "1.", ".5", "\"2026-01-01T00:00:00Z\"", "true", "9e99999", "-0"];
            return self.pick(&odd).to_owned();
        }
        self.pick(&usual).to_owned()
    }

    pub(in crate::source) fn integer(&mut self) -> String {
        if self.odd() {
            let odd = ["-1", "01", "1.0", "1e3", "99999999999999999999", "\"1\"", "1x", "+1", "-", "0x1"];
            return self.pick(&odd).to_owned();
        }
        self.rng.u32(0..100_000).to_string()
    }

    /// Any value, for members that nothing knows.
    pub(in crate::source) fn value(&mut self, depth: usize) -> String {
        match self.rng.u8(0..if depth == 0 { 5 } else { 7 }) {
            0 => "null".to_owned(),
            1 => self.pick(&["true", "false"]).to_owned(),
            2 => self.integer(),
            3 => self.string(),
            4 => self.seconds(),
            5 => {
                let values = (0..self.rng.usize(0..3)).map(|_| self.value(depth - 1)).collect();
                self.array(values)
            }
            _ => {
                let members = (0..self.rng.usize(0..3)).map(|_| (self.string(), self.value(depth - 1)));
                let members = members.collect::<Vec<_>>();
                self.object_of(members)
            }
        }
    }

    pub(in crate::source) fn array(&mut self, values: Vec<String>) -> String {
        let mut text = String::from("[");
        for (index, value) in values.into_iter().enumerate() {
            text.push_str(if index > 0 { "," } else { "" });
            text.push_str(&self.spaced(&value));
        }
        text.push(']');
        text
    }

    /// An object of these members, in any order.
    pub(in crate::source) fn object(&mut self, members: Vec<(&str, String)>) -> String {
        let quoted = members.into_iter().map(|(name, value)| (format!("\"{name}\""), value));
        let quoted = quoted.collect();
        self.object_of(quoted)
    }

    fn object_of(&mut self, mut members: Vec<(String, String)>) -> String {
        self.rng.shuffle(&mut members);
        if self.odd() && !members.is_empty() {
            let again = members[self.rng.usize(0..members.len())].clone();
            members.push(again);
        }
        let mut text = String::from("{");
        for (index, (name, value)) in members.into_iter().enumerate() {
            text.push_str(if index > 0 { "," } else { "" });
            let value = if self.odd() { "null".to_owned() } else { value };
            let value = if self.odd() { self.value(1) } else { value };
            text.push_str(&self.spaced(&name));
            text.push(':');
            text.push_str(&self.spaced(&value));
        }
        text.push('}');
        text
    }

    fn spaced(&mut self, text: &str) -> String {
        match self.rng.u8(0..30) {
            0 => format!(" {text}"),
            1 => format!("\n\t{text}\r "),
            _ => text.to_owned(),
        }
    }

    /// The text as it is, or, one time of four, cut or changed in one place.
    pub(in crate::source) fn changed(&mut self, text: String) -> Bytes {
        let mut text = text.into_bytes();
        let at = self.rng.usize(0..text.len());
        let byte = self.pick(b"\"\\{}[],:0123456789-.eEnultrfsa= \x00\xff\xc3");
        match self.rng.u8(0..16) {
            0 => text.truncate(at),
            1 => text[at] = byte,
            2 => text.insert(at, byte),
            3 => drop(text.remove(at)),
            _ => {}
        }
        text.into()
    }
}
