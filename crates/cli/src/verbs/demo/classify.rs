//! A subspace per digit: how well they tell digits apart, and digits that were never seen.

use subspan::classify::{self, Config, Dim, Labelled, Outcome};
use subspan_report::{count, image_shape, percent};

use super::Chapter;
use super::digits::{Digits, Part};
use crate::describe;
use crate::failure::Failure;
use crate::session::Session;
use crate::verbs::classify as verb;

/// Dimension of the subspaces.
const K: usize = 8;
/// Every fourth image is for the test.
const TEST: usize = 4;
/// Digits from here on are strangers in the second half of the chapter.
const STRANGERS: u32 = 8;

/// Trains on three of four digits, tests on the fourth, and does so again without the last two digits.
pub(super) fn chapter(digits: &Digits, session: &Session) -> Result<Chapter, Failure> {
    let watch = session.watch();
    let config = Config { dim: Dim::Fixed(K), ..Config::default() };
    let (train, test) = (digits.part(|i, _| i % TEST > 0), digits.part(|i, _| i % TEST == 0));
    let samples = train.samples()?;
    let data = Labelled::new(&samples, &train.codes, &digits.classes)?;
    let outcome = classify::run(&data, &config, session.seed, &watch)?;
    watch.phase("test");
    let tested = verb::Tested::of(&outcome, &test.samples()?, &test.codes)?;
    let train_scores = outcome.model.evaluate(&samples, &train.codes)?;
    let strangers = Strangers::find(digits, &config, session)?;

    watch.phase("describe");
    let mut record = session.record("classify");
    record.inputs.clone_from(&digits.inputs);
    verb::configure(&mut record, &config);
    verb::results(&mut record, &outcome, train_scores, Some(&tested), &digits.classes);
    describe::mistakes(&mut record, &outcome.model, &test.samples()?, &test.codes, "the test images")?;
    describe::subspaces(&mut record, &outcome.model, &data, &samples, image_shape(&digits.shape))?;
    record.result("story", story(&train, &test, &outcome, &tested, &strangers));
    session.close(&mut record, &watch);
    Ok(Chapter { title: "classify", record })
}

/// How well digits that were never seen are told from those that were, as areas under the curve.
struct Strangers {
    by_strangeness: f64,
    by_confidence: f64,
}

impl Strangers {
    fn find(digits: &Digits, config: &Config, session: &Session) -> Result<Self, Failure> {
        let known = digits.part(|i, digit| i % TEST > 0 && digit < STRANGERS);
        let samples = known.samples()?;
        let classes = &digits.classes[..STRANGERS as usize];
        let config = Config { rivals: false, ..config.clone() };
        let watch = session.watch();
        let model =
            classify::run(&Labelled::new(&samples, &known.codes, classes)?, &config, session.seed, &watch)?.model;
        let test = digits.part(|i, _| i % TEST == 0);
        let predicted = model.predict(&test.samples()?)?;
        let doubt =
            predicted.probabilities.chunks_exact(classes.len()).map(|p| 1.0 - p.iter().copied().fold(0.0, f32::max));
        let strange: Vec<bool> = test.codes.iter().map(|digit| *digit >= STRANGERS).collect();
        Ok(Self {
            by_strangeness: area(&predicted.strangeness.unwrap_or_default(), &strange),
            by_confidence: area(&doubt.collect::<Vec<_>>(), &strange),
        })
    }
}

/// Probability that a stranger scores higher than a known one; equal scores count half.
fn area(scores: &[f32], strange: &[bool]) -> f64 {
    let of = |which: bool| scores.iter().zip(strange).filter(move |(_, s)| **s == which).map(|(v, _)| *v);
    let wins =
        of(true).flat_map(|s| of(false).map(move |k| if s > k { 1.0 } else { f64::from(u8::from(s == k)) / 2.0 }));
    let pairs = (of(true).count() * of(false).count()).max(1);
    wins.sum::<f64>() / pairs as f64
}

fn story(train: &Part, test: &Part, outcome: &Outcome, tested: &verb::Tested, strangers: &Strangers) -> Vec<String> {
    let rival = |name: &str| tested.rivals.iter().find(|(n, _)| *n == name).map_or(f64::NAN, |(_, s)| s.accuracy);
    let points = |share: f64| format!("{:.1} %", 100.0 * share);
    vec![
        format!(
            "{} hand-written digits give every digit a subspace of dimension {}; of {} others they tell {} right, a linear softmax \
             classifier {}, the closed form without training {}.",
            count(train.codes.len() as u64),
            outcome.summary.k.unwrap_or(K),
            count(test.codes.len() as u64),
            points(tested.own.accuracy),
            points(rival("linear")),
            points(rival("clafic"))
        ),
        format!(
            "Trained without the 8s and 9s, strangeness ranks an 8 or 9 above a known digit in {} of pairs, doubt of \
             the classifier in {}.",
            percent(strangers.by_strangeness),
            percent(strangers.by_confidence)
        ),
    ]
}
