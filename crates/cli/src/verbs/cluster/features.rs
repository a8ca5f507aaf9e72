//! What images are clustered by: their pixels, wavelets, or a network trained on them.

use subspan::cluster::{Front, Scattering};
use subspan_io::Matrix;
use subspan_nets::{Pixels, Trunk, train_backbone};

use crate::failure::Failure;
use crate::watch::Watch;

/// The names, as typed.
pub(super) const NAMES: [&str; 5] = ["raw", "scattering", "scattering-turned", "conv4", "resnet18"];

/// Resolved and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Raw,
    Scattering {
        /// Averaged over turns.
        turned: bool,
    },
    Trained {
        trunk: Trunk,
        /// Passes over the images, if not the usual number.
        epochs: Option<usize>,
    },
}

impl Kind {
    pub(super) fn resolve(name: &str, epochs: Option<usize>) -> Result<Self, Failure> {
        let trunk = match name {
            "conv4" => Trunk::Conv4,
            "resnet18" => Trunk::ResNet18,
            _ if epochs.is_some() => {
                let hint = "passes are those of --features conv4 or resnet18";
                return Err(Failure::usage(format!("--epochs with --features {name}: nothing is trained"), Some(hint)));
            }
            "scattering" => return Ok(Self::Scattering { turned: false }),
            "scattering-turned" => return Ok(Self::Scattering { turned: true }),
            _ => return Ok(Self::Raw),
        };
        if epochs == Some(0) {
            return Err(Failure::usage("--epochs must be at least 1, not 0".to_string(), None::<String>));
        }
        Ok(Self::Trained { trunk, epochs })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Scattering { turned: false } => "scattering",
            Self::Scattering { turned: true } => "scattering-turned",
            Self::Trained { trunk: Trunk::Conv4, .. } => "conv4",
            Self::Trained { trunk: Trunk::ResNet18, .. } => "resnet18",
        }
    }

    /// Passes of the training, if there is one.
    pub(super) fn epochs(self) -> Option<usize> {
        match self {
            Self::Trained { epochs, .. } => Some(epochs.unwrap_or(Pixels::EPOCHS)),
            _ => None,
        }
    }

    /// Whether images of three channels will do.
    fn takes_colour(self) -> bool {
        !matches!(self, Self::Scattering { .. })
    }

    /// What turns images into features: fixed, or trained on them.
    pub(super) fn front(
        self,
        matrix: &Matrix,
        path: &str,
        pixels: &[f32],
        weights: &[f64],
        seed: u64,
        watch: &Watch,
    ) -> Result<Option<Front>, Failure> {
        let shape = match (self, matrix.shape()) {
            (Self::Raw, _) => return Ok(None),
            (_, [_, height, width]) => [*height as usize, *width as usize, 1],
            (_, [_, height, width, channels]) if *channels == 1 || self.takes_colour() => {
                [*height as usize, *width as usize, *channels as usize]
            }
            (_, shape) => {
                let channels = if self.takes_colour() { " or N x H x W x 3" } else { "" };
                return Err(Failure::Work {
                    message: format!("{path} has shape {shape:?}, {} needs images, N x H x W{channels}", self.name()),
                    hint: Some("--features raw takes rows as they are".into()),
                });
            }
        };
        Ok(Some(match self {
            Self::Trained { trunk, epochs } => {
                let usual = Pixels::usual(shape[2]);
                let settings = Pixels { trunk, epochs: epochs.unwrap_or(usual.epochs), ..usual };
                Front::Backbone(train_backbone(pixels, shape, weights, &settings, seed, watch)?)
            }
            _ => {
                watch.phase("scatter");
                let scattering = Scattering::new(shape[0], shape[1])?;
                let turned = self == Self::Scattering { turned: true };
                Front::Scattering(if turned { scattering.turned() } else { scattering })
            }
        }))
    }
}
