//! Architectures from the names and shapes of a checkpoint's tensors, or from a list of layers.

mod list;
mod modules;
mod plain;
mod resnet;

use crate::error::{NetError, Result};
use crate::graph::{Dims, Net};
use modules::{Module, modules};
use plain::Plain;
use resnet::ResNet;

/// What a checkpoint was recognised as; [`Architecture::build`] makes the network once the samples' shape is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    family: Family,
    modules: Vec<Module>,
}

#[derive(Debug, Clone, PartialEq)]
enum Family {
    Plain(Plain),
    ResNet(ResNet),
    List(Vec<String>),
}

impl Architecture {
    /// Recognises multilayer perceptrons, plain convolutional networks (VGG and smaller) and residual networks (CIFAR and
    /// ImageNet stems, basic blocks and bottlenecks, parameter-free and projection shortcuts). ReLU is assumed between layers.
    ///
    /// # Errors
    /// [`NetError::Architecture`] naming the tensor that does not fit; what is ambiguous is refused.
    ///
    /// ```
    /// use subspan_nets::Architecture;
    /// let shapes = [("fc1.weight", vec![8, 4]), ("fc1.bias", vec![8]), ("fc2.weight", vec![3, 8])];
    /// let shapes: Vec<_> = shapes.map(|(n, s)| (n.to_string(), s)).into();
    /// let arch = Architecture::infer(&shapes)?;
    /// assert_eq!(arch.to_string(), "mlp 4-8-3");
    /// assert_eq!(arch.build([4, 1, 1])?.nodes().len(), 4);
    /// # Ok::<(), subspan_nets::NetError>(())
    /// ```
    pub fn infer(shapes: &[(String, Vec<usize>)]) -> Result<Self> {
        let modules = modules(shapes)?;
        let family = match ResNet::recognise(&modules)? {
            Some(net) => Family::ResNet(net),
            None => Family::Plain(Plain::recognise(&modules)?),
        };
        Ok(Self { family, modules })
    }

    /// A network of the layers in `text`, separated by commas: parameter prefixes such as `conv1` (`conv1:s2p1` gives stride and
    /// padding; default stride 1 and the padding that keeps the size), `relu`, `tanh`, `gelu`, `sigmoid`, `maxpoolN`, `avgpoolN`
    /// (to N x N).
    ///
    /// # Errors
    /// [`NetError::LayerList`] naming the word that cannot be read, [`NetError::Architecture`].
    pub fn from_list(text: &str, shapes: &[(String, Vec<usize>)]) -> Result<Self> {
        let words: Vec<String> = text.split(',').map(|w| w.trim().to_string()).filter(|w| !w.is_empty()).collect();
        let modules = modules(shapes)?;
        list::check(&words, &modules)?;
        Ok(Self { family: Family::List(words), modules })
    }

    /// Channels of the images that the network takes; none if it takes plain vectors.
    pub fn image_channels(&self) -> Option<usize> {
        match &self.family {
            Family::Plain(net) => net.image_channels(),
            Family::ResNet(net) => Some(net.image_channels()),
            Family::List(words) => list::image_channels(words, &self.modules),
        }
    }

    /// The network for samples of this shape.
    ///
    /// # Errors
    /// [`NetError::Architecture`], [`NetError::Input`].
    pub fn build(&self, input: Dims) -> Result<Net> {
        let net = match &self.family {
            Family::Plain(plain) => plain.build(input)?,
            Family::ResNet(resnet) => resnet.build(input)?,
            Family::List(words) => list::build(words, &self.modules, input)?,
        };
        let used = net.parameters();
        match self.modules.iter().find(|m| !used.iter().any(|(name, _)| m.owns(name))) {
            Some(m) => Err(NetError::architecture(format!("no layer uses the tensors of {}", m.prefix))),
            None => Ok(net),
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.family {
            Family::Plain(net) => net.fmt(f),
            Family::ResNet(net) => net.fmt(f),
            Family::List(words) => write!(f, "{}", words.join(",")),
        }
    }
}
