//! Straight-through estimators on small trained networks.

use subspan::Silent;
use subspan::draw::Stream;
use subspan::merge::Layout;
use subspan_nets::analyze::{SteConfig, SteForm, match_ste, mlp_spec, train_model};
use subspan_nets::{Labelled, Training, mlp};

/// Two classes on either side of a curve.
fn samples(n: usize) -> (Vec<f32>, Vec<u32>) {
    let mut rng = Stream::new(5, "samples").rng(0);
    let x: Vec<f32> = (0..2 * n).map(|_| rng.normal() as f32).collect();
    let y = x.chunks(2).map(|p| u32::from(p[1] > (2.0 * p[0]).sin())).collect();
    (x, y)
}

#[test]
fn both_forms_find_permutations_no_worse_than_weights_with_the_same_bits_on_any_threads() {
    let (x, y) = samples(600);
    let data = Labelled { x: &x, y: &y };
    let net = mlp(2, &[16, 16], 2);
    let how = Training { epochs: 20, batch: 50, lr: 5e-3, ..Training::default() };
    let [a, b] = [1, 2].map(|seed| train_model(&net, &data, &how, seed, &Silent).unwrap());
    let layout = Layout::new(mlp_spec(&net), &a).unwrap();
    for form in [SteForm::Projected, SteForm::Latent] {
        let config = SteConfig { form, steps: Some(60), batch: 100, ..SteConfig::default() };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| match_ste(&net, &layout, [&a, &b], &data, &config, 0, &Silent).unwrap())
        };
        let (found, again) = (run(1), run(2));
        assert!(found.loss[1] <= found.loss[0] && (found.found_at > 0) == (found.loss[1] < found.loss[0]));
        assert_eq!((found.permutations, found.loss), (again.permutations, again.loss));
        // A model and itself: nothing is better than the identity.
        let same = match_ste(&net, &layout, [&a, &a], &data, &config, 0, &Silent).unwrap();
        assert!(same.loss[1] <= same.loss[0]);
    }
}

#[test]
fn the_projected_form_lowers_the_loss_half_way_between_narrow_networks() {
    let (x, y) = samples(600);
    let data = Labelled { x: &x, y: &y };
    let net = mlp(2, &[12, 12], 2);
    let how = Training { epochs: 30, batch: 50, lr: 5e-3, ..Training::default() };
    let better = (0..4).filter(|k| {
        let [a, b] = [2 * k + 10, 2 * k + 11].map(|seed| train_model(&net, &data, &how, seed, &Silent).unwrap());
        let layout = Layout::new(mlp_spec(&net), &a).unwrap();
        let config = SteConfig { steps: Some(200), batch: 100, ..SteConfig::default() };
        let found = match_ste(&net, &layout, [&a, &b], &data, &config, 0, &Silent).unwrap();
        found.loss[1] < found.loss[0]
    });
    assert!(better.count() >= 2);
}
