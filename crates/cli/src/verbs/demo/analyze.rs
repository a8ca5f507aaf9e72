//! Two networks trained on the spot: the barrier between them, and what is left of it when their units are matched.

use subspan::merge::Layout;
use subspan_nets::analyze::{AnalyzeConfig, Evaluation, analyze_pair, mlp_spec, params_of, train_model};
use subspan_nets::{Labelled, Training, mlp};
use subspan_report::{count, significant};

use super::Chapter;
use super::digits::Digits;
use crate::failure::Failure;
use crate::session::Session;
use crate::verbs::analyze::record;

/// Units of each hidden layer: wide enough for the barrier to go away, narrow enough to train in a second.
const WIDTHS: [usize; 3] = [256; 3];
/// Every fourth image is for the test.
const TEST: usize = 4;
/// Pixels hold ink from 0 to 16.
const INK: f32 = 16.0;

/// Trains two networks that differ in nothing but their seed, and analyses the line between them.
pub(super) fn chapter(digits: &Digits, session: &Session) -> Result<Chapter, Failure> {
    let watch = session.watch();
    let (train, test) = (digits.part(|i, _| i % TEST > 0), digits.part(|i, _| i % TEST == 0));
    let scaled = |values: &[f32]| -> Vec<f32> { values.iter().map(|v| v / INK - 0.5).collect() };
    let (x, x_test) = (scaled(train.values()), scaled(test.values()));
    let (data, data_test) = (Labelled { x: &x, y: &train.codes }, Labelled { x: &x_test, y: &test.codes });
    let net = mlp(digits.n_cols, &WIDTHS, digits.classes.len());
    let how = Training { epochs: 25, batch: 64, ..Training::default() };
    watch.phase("train");
    let one = |k: u64| train_model(&net, &data, &how, session.seed.wrapping_add(k), &watch);
    let (a, b) = (one(0)?, one(1)?);
    let layout = Layout::new(mlp_spec(&net), &a)?;
    let evaluation = Evaluation { net: &net, data: data_test, train: None };
    let config = AnalyzeConfig::default();
    let found = analyze_pair(&layout, &a, &b, Some(&evaluation), &config, session.seed, &watch)?;
    watch.phase("describe");
    let scores = [evaluation.scores(&params_of(&net, &a)?)?, evaluation.scores(&params_of(&net, &b)?)?];

    let mut out = session.record("analyze");
    out.inputs.clone_from(&digits.inputs);
    record::configure(&mut out, &config);
    out.configure("hidden layers", WIDTHS);
    out.configure("epochs", how.epochs);
    out.configure("batch", how.batch);
    out.configure("lr", how.lr);
    record::pair(&mut out, &found, &config);
    let mut story = vec![format!(
        "Two networks of three hidden layers of {} units, trained here on {} digits from different seeds: each is right on {:.1} \
         and {:.1} % of the test images, at a loss of {} and {}.",
        WIDTHS[0],
        count(train.codes.len() as u64),
        100.0 * scores[0].accuracy,
        100.0 * scores[1].accuracy,
        significant(scores[0].loss, 2),
        significant(scores[1].loss, 2)
    )];
    story.extend(record::story(&found, &config));
    out.result("story", story);
    session.close(&mut out, &watch);
    Ok(Chapter { title: "analyze", record: out })
}
