//! Outcomes of whole runs on planted classes.

use super::*;
use crate::Error;
use crate::observe::Silent;

/// Samples near planted subspaces of dimension `k` in `d` dimensions, `n` per class, classes in turn.
struct Planted {
    values: Vec<f32>,
    codes: Vec<u32>,
    classes: Vec<String>,
    d: usize,
}

fn planted(n_classes: usize, k: usize, d: usize, n: usize, noise: f64, seed: u64) -> Planted {
    let basis = Stream::new(11, "planted subspaces");
    let frames: Vec<Vec<f32>> = (0..n_classes).map(|c| geometry::random(&basis, c as u64, k, d).unwrap()).collect();
    let mut rng = Stream::new(seed, "planted samples").rng(0);
    let mut values = Vec::new();
    let codes: Vec<u32> = (0..n * n_classes).map(|i| (i % n_classes) as u32).collect();
    for code in &codes {
        let at: Vec<f64> = (0..k).map(|_| rng.normal()).collect();
        values.extend((0..d).map(|j| {
            let inside: f64 = (0..k).map(|i| at[i] * f64::from(frames[*code as usize][i * d + j])).sum();
            (inside + noise * rng.normal()) as f32
        }));
    }
    Planted { values, codes, classes: (0..n_classes).map(|c| format!("class {c}")).collect(), d }
}

impl Planted {
    fn samples(&self) -> DenseSamples<'_> {
        DenseSamples::new(&self.values, self.d).unwrap()
    }

    fn run(&self, config: &Config) -> Result<Outcome> {
        run(&Labelled::new(&self.samples(), &self.codes, &self.classes)?, config, 0, &Silent)
    }
}

fn config(method: Method, k: usize) -> Config {
    Config { method, dim: Dim::Fixed(k), epochs: Some(10), batch_size: 64, rivals: false, ..Config::default() }
}

/// Probability that a stranger scores above a known sample.
fn auroc(known: &[f32], strangers: &[f32]) -> f64 {
    let wins: f64 = strangers
        .iter()
        .map(|s| {
            known
                .iter()
                .map(|k| {
                    if s > k {
                        1.0
                    } else if s == k {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum::<f64>()
        })
        .sum();
    wins / (known.len() * strangers.len()) as f64
}

#[test]
fn planted_subspaces_are_learned_where_a_linear_classifier_fails() {
    let train = planted(4, 2, 12, 150, 0.15, 1);
    let test = planted(4, 2, 12, 100, 0.15, 2);
    for method in [Method::Gcr, Method::Clafic] {
        let outcome = train.run(&config(method, 2)).unwrap();
        let s = outcome.model.evaluate(&test.samples(), &test.codes).unwrap();
        assert!(s.accuracy > 0.9 && s.ece < 0.1, "{method}: {s:?}");
        assert!(outcome.summary.warnings.is_empty(), "{:?}", outcome.summary.warnings);
    }
    // Classes that are symmetric around zero have one mean: no half-space tells them apart.
    let linear = train.run(&config(Method::Linear, 2)).unwrap();
    assert!(linear.model.evaluate(&test.samples(), &test.codes).unwrap().accuracy < 0.5);
}

#[test]
fn training_improves_on_the_closed_form_from_any_start() {
    // Most of each class's energy lies in directions that all classes share; what tells classes apart is small.
    let (d, n) = (16, 400);
    let mut rng = Stream::new(3, "shared").rng(0);
    let codes: Vec<u32> = (0..n).map(|i| i % 2).collect();
    let mut values = Vec::new();
    for code in &codes {
        let mut row: Vec<f32> =
            (0..d).map(|j| if j < 4 { 3.0 * rng.normal() as f32 } else { 0.2 * rng.normal() as f32 }).collect();
        row[4 + *code as usize] += 1.5 * rng.normal() as f32;
        values.extend(row);
    }
    let data = Planted { values, codes, classes: vec!["a".into(), "b".into()], d };
    let held = |config: Config| data.run(&config).unwrap().summary.held_out.unwrap();
    let closed = held(config(Method::Clafic, 2));
    for init in [Init::Clafic, Init::Random] {
        for momentum_mode in [MomentumMode::Ambient, MomentumMode::Transported] {
            let init = init.clone();
            let trained = held(Config { init, momentum_mode, epochs: Some(30), ..config(Method::Gcr, 2) });
            assert!(trained.nll < closed.nll - 0.05, "{momentum_mode:?}: {trained:?} {closed:?}");
        }
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let data = planted(3, 2, 10, 60, 0.2, 4);
    let config = Config { rivals: true, ..config(Method::Gcr, 2) };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| data.run(&config).unwrap())
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn the_dimension_is_found_by_the_held_out_likelihood() {
    let data = planted(4, 4, 16, 150, 0.1, 5);
    let outcome = data.run(&Config { dim: Dim::Auto, ..config(Method::Gcr, 1) }).unwrap();
    assert_eq!(outcome.summary.k, Some(4));
}

#[test]
fn rivals_see_the_same_samples() {
    let data = planted(3, 1, 8, 60, 0.02, 6);
    let outcome = data.run(&Config { rivals: true, ..config(Method::Gcr, 1) }).unwrap();
    assert_eq!(outcome.rivals.iter().map(|r| r.name).collect::<Vec<_>>(), ["linear", "lda", "clafic"]);
    let clafic = outcome.rivals[2].model.evaluate(&data.samples(), &data.codes).unwrap();
    assert!(clafic.accuracy > 0.95, "{clafic:?}");
}

#[test]
fn strangers_are_farther_from_the_reconstruction() {
    let all = planted(6, 2, 16, 100, 0.1, 7);
    // Known classes are 0..4, strangers 4..6.
    let rows = |known: bool| -> Vec<usize> { (0..600).filter(|i| (i % 6 < 4) == known).collect() };
    let take =
        |rows: &[usize]| -> Vec<f32> { rows.iter().flat_map(|r| &all.values[r * 16..(r + 1) * 16]).copied().collect() };
    let known = Planted {
        values: take(&rows(true)),
        codes: rows(true).iter().map(|i| (i % 6) as u32).collect(),
        classes: all.classes[..4].to_vec(),
        d: 16,
    };
    let outcome = known.run(&Config { reconstruction_dim: 2, ..config(Method::Gcr, 2) }).unwrap();
    let strangers = take(&rows(false));
    let of =
        |values: &[f32]| outcome.model.predict(&DenseSamples::new(values, 16).unwrap()).unwrap().strangeness.unwrap();
    let area = auroc(&of(&known.values), &of(&strangers));
    assert!(area > 0.95, "{area}");
    assert_eq!(of(&[0.0; 16]), [1.0]);
    // One half is usual for a sample of a known class.
    let usual = of(&known.values).iter().sum::<f32>() / known.codes.len() as f32;
    assert!((0.35..0.65).contains(&usual), "{usual}");
}

#[test]
fn zero_samples_are_uniform_and_do_no_harm() {
    let mut data = planted(3, 1, 8, 40, 0.1, 8);
    data.values[..8].fill(0.0);
    let outcome = data.run(&config(Method::Gcr, 1)).unwrap();
    assert_eq!(outcome.summary.zero_rows, 1);
    let zero = outcome.model.predict(&DenseSamples::new(&[0.0; 8], 8).unwrap()).unwrap();
    assert_eq!(zero.codes, [0]);
    assert!(zero.probabilities.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6));
}

#[test]
fn trained_frames_are_orthonormal_and_classes_of_few_samples_are_named() {
    let mut data = planted(3, 1, 8, 30, 0.1, 9);
    // The last class keeps two samples.
    let keep: Vec<usize> = (0..90).filter(|i| i % 3 < 2 || *i < 6).collect();
    data.values = keep.iter().flat_map(|r| data.values[r * 8..(r + 1) * 8].to_vec()).collect();
    data.codes = keep.iter().map(|r| data.codes[*r]).collect();
    let outcome = data.run(&config(Method::Gcr, 4)).unwrap();
    let Scorer::Subspaces { frames, .. } = &outcome.model.scorer else { panic!("subspaces were asked for") };
    for o in frames.offsets.windows(2) {
        assert!(orthonormality_defect(&frames.rows[o[0] * 8..o[1] * 8], 8) < 5e-6);
    }
    assert!(outcome.summary.warnings.iter().any(|w| w.contains("class 2")), "{:?}", outcome.summary.warnings);
}

#[test]
fn bad_inputs_are_refused_by_name() {
    let data = planted(2, 1, 4, 10, 0.1, 10);
    let samples = data.samples();
    let message = |e: Error| e.to_string();
    let short = Labelled::new(&samples, &data.codes[1..], &data.classes).err().map(message).unwrap();
    assert!(short.contains("19") && short.contains("20"), "{short}");
    let one = Labelled::new(&samples, &[0; 20], &data.classes[..1]).err().map(message).unwrap();
    assert!(one.contains("at least 2 classes") && one.contains("class 0"), "{one}");
    let wide = data.run(&config(Method::Gcr, 5)).err().map(message).unwrap();
    assert!(wide.contains("k must be at most 4"), "{wide}");
    for bad in [
        Config { lr: 0.0, ..config(Method::Gcr, 1) },
        Config { momentum: 1.0, ..config(Method::Gcr, 1) },
        Config { gamma: f64::NAN, ..config(Method::Gcr, 1) },
        Config { held_out: 1.0, ..config(Method::Gcr, 1) },
        config(Method::Gcr, 0),
    ] {
        assert!(matches!(data.run(&bad), Err(Error::Parameter { .. })));
    }
    let model = data.run(&config(Method::Clafic, 1)).unwrap().model;
    assert!(matches!(
        model.predict(&DenseSamples::new(&[1.0; 3], 3).unwrap()),
        Err(Error::Shape { found: 3, expected: 4, .. })
    ));
}

#[test]
fn a_run_stops_when_asked() {
    let data = planted(2, 1, 4, 10, 0.1, 12);
    let samples = data.samples();
    let labelled = Labelled::new(&samples, &data.codes, &data.classes).unwrap();
    assert!(matches!(run(&labelled, &config(Method::Gcr, 1), 0, &Stopped), Err(Error::Cancelled)));
}

struct Stopped;

impl Observer for Stopped {
    fn event(&self, _: crate::Event<'_>) {}

    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn training_goes_on_from_an_earlier_model() {
    let data = planted(3, 2, 10, 60, 0.3, 13);
    let first = data.run(&Config { epochs: Some(1), init: Init::Random, ..config(Method::Gcr, 2) }).unwrap();
    let Scorer::Subspaces { frames, .. } = first.model.scorer else { panic!("subspaces were asked for") };
    let on = |frames: &Frames| {
        let init = Init::Frames(frames.clone());
        data.run(&Config { init, dim: Dim::Auto, ..config(Method::Gcr, 1) }).map(|o| o.summary)
    };
    let second = on(&frames).unwrap();
    assert_eq!(second.k, Some(2));
    assert!(second.held_out.unwrap().nll < first.summary.held_out.unwrap().nll, "{second:?}");
    let short = Frames { rows: frames.rows[..40].to_vec(), offsets: vec![0, 2, 4] };
    assert!(matches!(on(&short), Err(Error::Shape { found: 2, expected: 3, .. })));
}

#[test]
fn lazy_classes_deviate_by_less_than_what_they_may_miss() {
    // Many classes, small batches: most classes have no sample in a batch.
    let data = planted(40, 2, 24, 30, 0.2, 14);
    let momentum_mode = MomentumMode::Transported;
    let base = Config { momentum_mode, batch_size: 8, epochs: Some(3), lr: 0.01, ..config(Method::Gcr, 2) };
    let frames = |tau: f64| {
        let outcome = data.run(&Config { lazy_tau: tau, ..base.clone() }).unwrap();
        let Scorer::Subspaces { frames, .. } = outcome.model.scorer else { panic!("subspaces were asked for") };
        frames
    };
    let eager = frames(0.0);
    let span = |frames: &Frames, c: usize| span(&frames.rows[c * 48..(c + 1) * 48], 24).unwrap();
    let start = data.run(&config(Method::Clafic, 2)).unwrap().model.scorer;
    let Scorer::Subspaces { frames: start, .. } = start else { panic!("subspaces were asked for") };
    let lazy = frames(1e-4);
    assert_ne!(lazy, eager, "nothing was left out");
    for c in 0..40 {
        let apart = span(&lazy, c).distance(&span(&eager, c)).unwrap();
        let way = span(&start, c).distance(&span(&eager, c)).unwrap();
        assert!(apart < 0.1 * way, "{c}: {apart} of {way}");
    }
}

#[test]
fn the_published_update_learns_the_same_subspaces() {
    let data = planted(3, 2, 10, 60, 0.2, 15);
    let run = |update, reorth_every| {
        data.run(&Config { update, reorth_every, init: Init::Random, ..config(Method::Gcr, 2) }).unwrap().model.scorer
    };
    let (Scorer::Subspaces { frames: ours, .. }, Scorer::Subspaces { frames: theirs, .. }) =
        (run(Update::Series, 50), run(Update::Literal, 5))
    else {
        panic!("subspaces were asked for")
    };
    for c in 0..3 {
        let of = |frames: &Frames| span(&frames.rows[c * 20..(c + 1) * 20], 10).unwrap();
        let apart = of(&ours).distance(&of(&theirs)).unwrap();
        assert!(apart < 1e-3, "{apart}");
    }
}

#[test]
fn calibration_never_changes_the_predicted_class() {
    let data = planted(4, 2, 8, 80, 0.6, 16);
    let mut model = data.run(&config(Method::Gcr, 2)).unwrap().model;
    let codes = model.predict(&data.samples()).unwrap().codes;
    for t in [0.05, 20.0] {
        model.temperature = t;
        assert_eq!(model.predict(&data.samples()).unwrap().codes, codes);
    }
}
