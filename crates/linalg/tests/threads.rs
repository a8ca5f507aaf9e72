//! Factorizations give the same bits on any number of threads.

use subspan_linalg::{Mat, cholesky, eigh, philox::fill_uniform, qr_factor, thin_svd};

#[test]
fn threads_do_not_change_a_factorization() {
    let noise = |rows: usize, columns: usize| {
        let mut values = vec![0.0; rows * columns];
        fill_uniform(7, 0, &mut values);
        Mat::from_vec(rows, columns, values.iter().map(|v| v - 0.5).collect())
    };
    let (wide, square) = (noise(40, 280), noise(150, 150));
    let gram = square.transpose().mul(&square);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (svd, e) = (thin_svd(&wide).unwrap(), eigh(&gram).unwrap());
            let (q, r) = qr_factor(&square).unwrap();
            (svd.u, svd.s, svd.v, e.values, e.vectors, q, r, cholesky(&gram).unwrap().l())
        })
    };
    assert!(run(1) == run(3));
}
