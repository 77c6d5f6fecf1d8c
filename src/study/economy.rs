//! What a replay costs: electricity, a share of the machine's price, and the same work bought from an API.
//!
//! What is not known is nothing, never 0. The prices that a user does not name have defaults, which every report prints
//! with their date.

use crate::catalog::Price;
use crate::catalog::suggest;
use crate::known::Trust;
use crate::metrics::Summary;
use crate::rig::power::Energy;
use crate::units::{Money, MoneyPerKwh, MoneyPerMtok, Span};
use std::collections::BTreeMap;

/// The prefix of its settings.
pub const PREFIX: &str = "cost.";

/// Hours of a year.
const HOURS_PER_YEAR: f64 = 8766.0;
const SECS_PER_DAY: f64 = 86_400.0;

/// When and by whom the defaults were chosen.
pub const DEFAULTS_FROM: &str =
    "defaults of 2026-11; electricity as in the MMBT fleet study, May 2026";

const KEYS: [&str; 7] = [
    "electricity_usd_kwh",
    "years",
    "utilisation",
    "hardware_usd",
    "api_usd_mtok_in",
    "api_usd_mtok_out",
    "api_usd_mtok_cached",
];

/// What things cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prices {
    /// Electricity.
    pub electricity: MoneyPerKwh,
    /// For how many years the machine is used.
    pub years: f64,
    /// During what share of those years it works.
    pub utilisation: f64,
    /// The machine, instead of the catalogue's price.
    pub hardware: Option<Money>,
    /// An API's price of prompt tokens.
    pub api_in: Option<MoneyPerMtok>,
    /// Its price of tokens of answers.
    pub api_out: Option<MoneyPerMtok>,
    /// Its price of prompt tokens that it has in a cache; that of others when absent.
    pub api_cached: Option<MoneyPerMtok>,
}

impl Default for Prices {
    fn default() -> Prices {
        Prices {
            electricity: MoneyPerKwh(0.12),
            years: 3.0,
            utilisation: 0.25,
            hardware: None,
            api_in: None,
            api_out: None,
            api_cached: None,
        }
    }
}

/// Why prices cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PriceError {
    /// There is no such price.
    #[error("unknown setting `cost.{key}`{}", suggest::question(suggestions))]
    Unknown {
        /// As typed.
        key: String,
        /// What may have been meant.
        suggestions: Vec<String>,
    },
    /// It is not a price.
    #[error("`cost.{key}` is `{found}`; expected {expected}")]
    Wrong {
        /// Which.
        key: String,
        /// As typed.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// An API's price lacks its other half.
    #[error("`cost.{given}` needs `cost.{needed}` beside it")]
    Half {
        /// What was named.
        given: &'static str,
        /// What must be named too.
        needed: &'static str,
    },
}

impl Prices {
    /// Reads settings that begin with [`PREFIX`].
    pub fn parse(settings: &[(String, String)]) -> Result<Prices, PriceError> {
        let mut prices = Prices::default();
        for (key, text) in settings {
            let key = key.strip_prefix(PREFIX).unwrap_or(key);
            let read = |expected: &'static str, fits: fn(f64) -> bool| {
                let number = text
                    .parse()
                    .ok()
                    .filter(|n: &f64| n.is_finite() && fits(*n));
                number.ok_or_else(|| PriceError::Wrong {
                    key: key.to_string(),
                    found: text.clone(),
                    expected,
                })
            };
            let dollars = || read("a number of US dollars from 0", |n| n >= 0.0);
            match key {
                "electricity_usd_kwh" => prices.electricity = MoneyPerKwh(dollars()?),
                "years" => prices.years = read("a number of years above 0", |n| n > 0.0)?,
                "utilisation" => {
                    let share = read("a share above 0, at most 1", |n| n > 0.0 && n <= 1.0)?;
                    prices.utilisation = share;
                }
                "hardware_usd" => prices.hardware = Some(Money(dollars()?)),
                "api_usd_mtok_in" => prices.api_in = Some(MoneyPerMtok(dollars()?)),
                "api_usd_mtok_out" => prices.api_out = Some(MoneyPerMtok(dollars()?)),
                "api_usd_mtok_cached" => prices.api_cached = Some(MoneyPerMtok(dollars()?)),
                _ => {
                    return Err(PriceError::Unknown {
                        key: key.to_string(),
                        suggestions: suggest::suggest(key, KEYS),
                    });
                }
            }
        }
        prices.check_api()?;
        Ok(prices)
    }

    fn check_api(&self) -> Result<(), PriceError> {
        let half = |given, needed| Err(PriceError::Half { given, needed });
        match (self.api_in, self.api_out, self.api_cached) {
            (Some(_), None, _) => half("api_usd_mtok_in", "api_usd_mtok_out"),
            (None, Some(_), _) => half("api_usd_mtok_out", "api_usd_mtok_in"),
            (None, None, Some(_)) => half("api_usd_mtok_cached", "api_usd_mtok_in"),
            _ => Ok(()),
        }
    }

    /// Returns every price that was used, by its full key.
    pub fn settings(&self) -> BTreeMap<String, f64> {
        let all = [
            Some(self.electricity.0),
            Some(self.years),
            Some(self.utilisation),
            self.hardware.map(|money| money.0),
            self.api_in.map(|price| price.0),
            self.api_out.map(|price| price.0),
            self.api_cached.map(|price| price.0),
        ];
        let named = KEYS.into_iter().zip(all);
        named
            .filter_map(|(key, price)| Some((format!("{PREFIX}{key}"), price?)))
            .collect()
    }
}

/// What the machine costs, and how that is known.
#[derive(Clone, PartialEq, Debug)]
pub struct Bought {
    /// How much.
    pub amount: Money,
    /// When that was asked; nothing when the user named it.
    pub date: Option<String>,
    /// Who says so.
    pub source: String,
    /// How it is known.
    pub trust: Trust,
}

impl Bought {
    /// Returns the price of the catalogue.
    pub fn from_catalog(price: &Price) -> Bought {
        Bought {
            amount: price.amount.value,
            date: Some(price.date.clone()),
            source: price.amount.source.clone(),
            trust: price.amount.trust,
        }
    }

    fn by_user(amount: Money) -> Bought {
        Bought {
            amount,
            date: None,
            source: "cost.hardware_usd".to_string(),
            trust: Trust::Measured,
        }
    }
}

/// The same work bought from an API.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Api {
    /// What the whole replay would cost there.
    pub total: Money,
    /// After how many runs the machine has paid for itself; nothing when it never does, or its costs are not known.
    pub break_even_runs: Option<f64>,
    /// How many days that takes at the utilisation and the speed of this replay.
    pub break_even_days: Option<f64>,
}

/// What a replay costs.
#[derive(Clone, PartialEq, Debug)]
pub struct Economy {
    /// The prices that were used.
    pub prices: Prices,
    /// What the machine costs.
    pub hardware: Option<Bought>,
    /// Electricity.
    pub electricity: Option<Money>,
    /// The share of the machine's price that belongs to the time of the replay.
    pub hardware_share: Option<Money>,
    /// Both.
    pub total: Option<Money>,
    /// That for each run.
    pub per_run: Option<Money>,
    /// That for each million tokens of prompts and answers.
    pub per_mtok: Option<Money>,
    /// The same from an API, where its prices were named.
    pub api: Option<Api>,
}

impl Economy {
    /// Returns what a replay costs that came to this.
    pub fn of(
        prices: Prices,
        price: Option<&Price>,
        energy: Option<&Energy>,
        summary: &Summary,
    ) -> Economy {
        let hardware = prices
            .hardware
            .map(Bought::by_user)
            .or_else(|| price.map(Bought::from_catalog));
        let electricity = energy.map(|energy| prices.electricity.of(energy.total()));
        let worked = HOURS_PER_YEAR * 3600.0 * prices.years * prices.utilisation;
        let share = |bought: &Bought| bought.amount * (summary.wall.secs() / worked);
        let hardware_share = hardware.as_ref().map(share);
        let total = electricity.zip(hardware_share).map(|(a, b)| a + b);
        let runs = f64::from(summary.runs);
        let tokens = summary.tokens.prompt + summary.tokens.output;
        let each = |count: f64| total.filter(|_| count > 0.0).map(|total| total / count);
        Economy {
            prices,
            per_run: each(runs),
            per_mtok: each(tokens.as_f64() / 1e6),
            api: api(&prices, summary, hardware.as_ref(), electricity),
            hardware,
            electricity,
            hardware_share,
            total,
        }
    }
}

fn api(
    prices: &Prices,
    summary: &Summary,
    hardware: Option<&Bought>,
    electricity: Option<Money>,
) -> Option<Api> {
    let (input, output) = prices.api_in.zip(prices.api_out)?;
    let tokens = &summary.tokens;
    // An API's cache is taken to forget nothing.
    let found = tokens.cached_unbounded.unwrap_or(tokens.cached);
    let (cached, price) = match prices.api_cached {
        Some(price) => (found, price),
        None => (crate::units::Tokens::ZERO, input),
    };
    let total = input.of(tokens.prompt - cached) + price.of(cached) + output.of(tokens.output);
    let runs = f64::from(summary.runs);
    let saved = electricity.map(|electricity| (total - electricity) / runs);
    let break_even_runs = hardware
        .zip(saved)
        .filter(|(_, saved)| saved.0 > 0.0)
        .map(|(bought, saved)| (bought.amount.0 / saved.0).ceil());
    let a_run = Span::secs(summary.wall) / runs;
    Some(Api {
        total,
        break_even_runs,
        break_even_days: break_even_runs
            .map(|count| count * a_run / (SECS_PER_DAY * prices.utilisation)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::rig::power::Covers;
    use crate::units::{Joules, Tokens};

    fn settings(all: &[(&str, &str)]) -> Vec<(String, String)> {
        let pair = |(key, value): &(&str, &str)| (format!("cost.{key}"), (*value).to_string());
        all.iter().map(pair).collect()
    }

    #[test]
    fn prices_are_read_and_what_is_wrong_is_named() {
        let read = |all: &[(&str, &str)]| Prices::parse(&settings(all));
        assert_eq!(read(&[]), Ok(Prices::default()));
        let said = |all: &[(&str, &str)]| read(all).unwrap_err().to_string();
        assert_eq!(
            said(&[("electricty_usd_kwh", "1")]),
            "unknown setting `cost.electricty_usd_kwh`; did you mean `electricity_usd_kwh`?"
        );
        assert_eq!(
            said(&[("utilisation", "2")]),
            "`cost.utilisation` is `2`; expected a share above 0, at most 1"
        );
        assert!(said(&[("api_usd_mtok_in", "3")]).contains("needs `cost.api_usd_mtok_out`"));
        for wrong in ["", "nan", "-1", "inf", "free"] {
            assert!(read(&[("hardware_usd", wrong)]).is_err(), "{wrong}");
        }
    }

    /// An hour at 1 kW for 10 runs of a million tokens in all, on a machine of 8,766 dollars.
    #[test]
    fn costs_add_up_by_hand() {
        let mut summary = Metrics::default().finish().summary;
        summary.wall = Span::from_secs(3600.0);
        summary.runs = 10;
        summary.tokens.prompt = Tokens(900_000);
        summary.tokens.output = Tokens(100_000);
        summary.tokens.cached_unbounded = Some(Tokens(400_000));
        let energy = Energy {
            prefill: Joules(1.8e6),
            decode: Joules(1.8e6),
            attention: Joules(0.0),
            idle: Joules(0.0),
            covers: Covers::Machine,
            trust: Trust::Measured,
        };
        let prices = Prices::parse(&settings(&[
            ("electricity_usd_kwh", "0.5"),
            ("years", "1"),
            ("utilisation", "1"),
            ("hardware_usd", "8766"),
            ("api_usd_mtok_in", "2"),
            ("api_usd_mtok_cached", "0.5"),
            ("api_usd_mtok_out", "10"),
        ]))
        .unwrap();
        let near = |found: Option<Money>, expected: f64| {
            let found = found.unwrap().0;
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        };
        let economy = Economy::of(prices, None, Some(&energy), &summary);
        near(economy.electricity, 0.5);
        near(economy.hardware_share, 1.0);
        near(economy.total, 1.5);
        near(economy.per_run, 0.15);
        near(economy.per_mtok, 1.5);
        let api = economy.api.unwrap();
        // 0.5 Mtok at 2, 0.4 at 0.5, 0.1 at 10 dollars.
        near(Some(api.total), 2.2);
        // 0.17 dollars saved a run.
        assert_eq!(api.break_even_runs, Some(51565.0));
        let unknown = Economy::of(prices, None, None, &summary);
        assert_eq!((unknown.electricity, unknown.total), (None, None));
        assert_eq!(unknown.api.unwrap().break_even_runs, None);
    }
}
