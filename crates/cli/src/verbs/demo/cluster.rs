//! The same digits without their names: how many kinds there are, and which image is of which.

use subspan::cluster::{self, AffinityKind, Config, Features};
use subspan_report::{count, image_shape, percent, significant};

use super::Chapter;
use super::digits::Digits;
use crate::describe;
use crate::failure::Failure;
use crate::session::Session;
use crate::verbs::cluster as verb;

/// Clusters all images and compares with the digits they show.
pub(super) fn chapter(digits: &Digits, session: &Session) -> Result<Chapter, Failure> {
    let watch = session.watch();
    let all = digits.part(|_, _| true);
    let config = Config { affinity: Some(AffinityKind::Cosine), max_clusters: Some(30), ..Config::default() };
    let outcome = cluster::run(&Features::new(all.values(), digits.n_cols)?, &config, session.seed, &watch)?;
    let agreement = cluster::agreement(&outcome.labels, &all.codes);
    watch.phase("describe");
    let mut record = session.record("cluster");
    record.inputs.clone_from(&digits.inputs);
    verb::configure(&mut record, &config);
    verb::results(&mut record, &outcome, Some(agreement));
    describe::clusters(&mut record, &outcome, all.values(), digits.n_cols, image_shape(&digits.shape));
    let mut story = vec![format!(
        "{} images, no names given: {} clusters. Compared with the digits, {} of the images are where they belong \
         (mutual information {}).",
        count(all.codes.len() as u64),
        outcome.clusters.len(),
        percent(agreement.accuracy),
        significant(agreement.nmi, 3)
    )];
    if let Some(c) = &outcome.summary.count {
        story.push(format!("Numbers from {} to {} tell the images apart about as well.", c.interval[0], c.interval[1]));
    }
    record.result("story", story);
    session.close(&mut record, &watch);
    Ok(Chapter { title: "cluster", record })
}
