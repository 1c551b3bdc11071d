//! From a wire value and unit to a stored value in the canonical unit.

use rust_decimal::Decimal;

use super::{Definition, Metric, Micro};

/// Why a numeric value cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// The metric does not accept the unit.
    Unknown,
    /// The conversion leaves what a decimal can hold.
    Conversion,
    /// Implausible after conversion.
    OutOfRange,
}

/// The greatest whole part of a value.
const MOST_WHOLE: i64 = 999_999_999;

/// Converts, rounds half-even to six places, then checks the plausible range.
///
/// # Errors
/// [`UnitError`] says which of the three steps failed.
pub fn normalise(metric: Metric, value: Decimal, unit: &str) -> Result<Micro, UnitError> {
    let definition = metric.definition();
    let unit =
        definition.units.iter().find(|known| known.name == unit).ok_or(UnitError::Unknown)?;
    if definition.fraction
        && unit.name == "%"
        && value > Decimal::ZERO
        && value <= Decimal::ONE
        && let Some(percent) = value.checked_mul(Decimal::ONE_HUNDRED)
        && let Ok(percent) = within(definition, percent)
    {
        return Ok(percent);
    }
    let converted = value
        .checked_add(unit.shift)
        .and_then(|shifted| shifted.checked_mul(unit.factor))
        .and_then(|scaled| scaled.checked_div(unit.divisor))
        .ok_or(UnitError::Conversion)?;
    within(definition, converted)
}

/// As [`normalise`] for a whole number in the canonical unit, which needs no decimals; `None` where
/// there is anything to convert.
pub(crate) fn normalise_whole(
    metric: Metric,
    value: i64,
    unit: &str,
) -> Option<Result<Micro, UnitError>> {
    let definition = metric.definition();
    if definition.fraction || definition.unit != Some(unit) || !(0..=MOST_WHOLE).contains(&value) {
        return None;
    }
    let (micro, (least, greatest)) = (Micro::whole(value), definition.range);
    Some(if (least..=greatest).contains(&micro) { Ok(micro) } else { Err(UnitError::OutOfRange) })
}

fn within(definition: &Definition, value: Decimal) -> Result<Micro, UnitError> {
    let (least, greatest) = definition.range;
    match Micro::from_decimal(value) {
        Some(micro) if (least..=greatest).contains(&micro) => Ok(micro),
        _ => Err(UnitError::OutOfRange),
    }
}
