"""Features of images that small shifts hardly move."""

from . import _check, _native


def scattering(images, *, turned=False, n_threads=None):
    """Scattering features of grey images, as ``subspan cluster --features scattering`` computes them.

    Wavelet moduli of first and second order (3 scales, 8 orientations), averaged over squares of eight pixels and divided by their
    largest value per image and channel (Bruna and Mallat, 2013): small shifts and deformations hardly move them, unlike pixels. For
    :class:`subspan.ManifoldClustering` and anything else that compares images.

    Parameters
    ----------
    images : array of shape (n_images, height, width)
        Of any number type; sides from 8 to 256 pixels.
    turned : bool
        Whether features are averaged over turns by -16 to 16 degrees, at five times the cost.
    n_threads : int, optional
        One per core by default; the result does not depend on it.

    Returns
    -------
    array of shape (n_images, n_features), float32

    Examples
    --------
    >>> import numpy as np, subspan
    >>> subspan.scattering(np.eye(16)[None]).shape
    (1, 868)
    """
    import numpy as np

    images = np.asarray(images)
    if images.ndim != 3:
        raise ValueError(f"images of shape {images.shape}: expected n_images x height x width")
    rows = _check.matrix(images.reshape(len(images), images.shape[1] * images.shape[2]), "images")
    return _native.scattering(rows, images.shape[1:], bool(turned), _check.count(n_threads, "n_threads"))
