//! What the kernels share: run-time dispatch and raw vector loads and stores.
#![allow(unsafe_code)]

use pulp::{Arch, Simd, WithSimd};

/// Runs `op` with the widest vectors of this machine (AVX-512, AVX2 with FMA, NEON, or scalar code).
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    Arch::new().dispatch(op)
}

/// Loads one vector.
///
/// # Safety
/// `S::F64_LANES` values must be readable at `from`; no alignment is needed.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(from: *const f64) -> S::f64s {
    // SAFETY: the caller's promise; a vector is plain data.
    unsafe { from.cast::<S::f64s>().read_unaligned() }
}

/// Stores one vector.
///
/// # Safety
/// `S::F64_LANES` values must be writable at `to`; no alignment is needed.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(to: *mut f64, value: S::f64s) {
    // SAFETY: the caller's promise; a vector is plain data.
    unsafe { to.cast::<S::f64s>().write_unaligned(value) }
}

/// Loads lanes `from..to` of the vector at `ptr`; the other lanes are zero and their memory is not read.
///
/// # Safety
/// The lanes `from..to` must be readable.
#[inline(always)]
pub(crate) unsafe fn load_lanes<S: Simd>(simd: S, ptr: *const f64, from: usize, to: usize) -> S::f64s {
    // SAFETY: the caller's promise.
    unsafe { simd.mask_load_ptr_f64s(simd.mask_between_m64s(from as u64, to as u64), ptr) }
}

/// Stores lanes `from..to` of `value` at `ptr`; the other lanes' memory is not touched.
///
/// # Safety
/// The lanes `from..to` must be writable.
#[inline(always)]
pub(crate) unsafe fn store_lanes<S: Simd>(simd: S, ptr: *mut f64, value: S::f64s, from: usize, to: usize) {
    // SAFETY: the caller's promise.
    unsafe { simd.mask_store_ptr_f64s(simd.mask_between_m64s(from as u64, to as u64), ptr, value) }
}

/// Asks for the cache line at `ptr`, which may be any address, to be brought into the second-level cache.
#[inline(always)]
pub(crate) fn prefetch(ptr: *const f64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64 machine; a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// Virtual lanes of a sum over columns: 8 on every machine, so that the order of additions is the same.
pub(crate) const LANES: usize = 8;

/// The sum of the virtual lanes, halves first.
#[inline(always)]
pub(crate) fn join_lanes(s: &[f64; LANES]) -> f64 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// A buffer that grows as needed and starts on a cache line; its contents are stale between uses.
#[derive(Default)]
pub(crate) struct Scratch(Vec<Line>);

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line(#[allow(dead_code, reason = "read as a slice of values")] [f64; LANES]);

impl Scratch {
    /// `len` values with arbitrary (initialized) contents, the first on a cache line.
    pub(crate) fn take(&mut self, len: usize) -> &mut [f64] {
        let lines = len.div_ceil(LANES);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; LANES]));
        }
        // SAFETY: a line is eight values without padding, and there are enough lines for `len` values.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// All values.
    pub(crate) fn values(&self) -> &[f64] {
        // SAFETY: a line is eight values without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LANES) }
    }
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;

    /// Reproducible values in [-1, 1).
    pub(crate) fn noise(len: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// Runs `op` once for every vector width this machine has, the scalar one first.
    pub(crate) fn for_each_width(mut op: impl FnMut(&str, Width)) {
        op("scalar", Width::Scalar);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(v3) = pulp::x86::V3::try_new() {
                op("avx2", Width::V3(v3));
            }
            if let Some(v4) = pulp::x86::V4::try_new() {
                op("avx512", Width::V4(v4));
            }
        }
    }

    /// A vector width to run a kernel with.
    #[derive(Clone, Copy)]
    pub(crate) enum Width {
        Scalar,
        #[cfg(target_arch = "x86_64")]
        V3(pulp::x86::V3),
        #[cfg(target_arch = "x86_64")]
        V4(pulp::x86::V4),
    }

    impl Width {
        pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
            match self {
                Self::Scalar => pulp::Scalar::new().vectorize(op),
                #[cfg(target_arch = "x86_64")]
                Self::V3(simd) => Simd::vectorize(simd, op),
                #[cfg(target_arch = "x86_64")]
                Self::V4(simd) => Simd::vectorize(simd, op),
            }
        }
    }
}
