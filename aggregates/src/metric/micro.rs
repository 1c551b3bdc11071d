//! Values as integer millionths: `numeric(15,6)` without a decimal type in every row.

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};

/// A value in millionths of its canonical unit; within ±999,999,999.999999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Micro(pub i64);

impl Micro {
    /// Nine integer digits and six decimals.
    pub const MAX: Micro = Micro(999_999_999_999_999);

    /// `units` whole units.
    pub const fn whole(units: i64) -> Self {
        Self(units * 1_000_000)
    }

    /// The decimal rounded half-even to six places, or `None` where it has too many digits.
    pub fn from_decimal(value: Decimal) -> Option<Self> {
        let rounded = value.round_dp_with_strategy(6, RoundingStrategy::MidpointNearestEven);
        let micros = rounded.checked_mul(Decimal::from(1_000_000))?.to_i64()?;
        (micros.abs() <= Self::MAX.0).then_some(Self(micros))
    }

    /// A JSON number by its shortest decimal text, which is what its sender wrote.
    pub fn from_json(number: &serde_json::Number) -> Option<Self> {
        Self::from_decimal(decimal(number)?)
    }

    /// The exact decimal.
    pub fn to_decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), 6).normalize()
    }

    /// The JSON number: an integer where there is no fraction. Fifteen digits survive a double.
    pub fn to_json(self) -> serde_json::Number {
        if self.0 % 1_000_000 == 0 {
            return serde_json::Number::from(self.0 / 1_000_000);
        }
        self.to_decimal()
            .to_string()
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .unwrap_or_else(|| serde_json::Number::from(self.0 / 1_000_000))
    }
}

/// A JSON number as a decimal, or `None` where it has more digits than a decimal holds.
pub(crate) fn decimal(number: &serde_json::Number) -> Option<Decimal> {
    let text = number.to_string();
    if text.contains(['e', 'E']) {
        // Tiny numbers vanish when rounded to six places; from_scientific refuses some of them.
        let double = number.as_f64()?;
        if double.abs() < 1e-12 {
            return Some(Decimal::ZERO);
        }
        Decimal::from_scientific(&text).ok()
    } else {
        text.parse().ok()
    }
}
