//! Sums over rows: gradients of what all rows share.

use rayon::prelude::*;

use crate::reference::sum::Sum;

/// Rows that are summed before their sums are: fixed, so that no result depends on threads.
const ROWS: usize = 1024;
/// Columns that are summed side by side.
const COLUMNS: usize = 256;

/// `[groups, columns]` sums over the rows; row r belongs to group `r % groups`,
/// and `groups` divides the rows.
///
/// `terms` gives the terms of columns `start..end` of a row.
pub(super) fn over_rows(
    rows: usize,
    columns: usize,
    groups: usize,
    terms: impl Fn(usize, usize, usize) -> Vec<f64> + Sync,
) -> Vec<f64> {
    let blocks = columns.div_ceil(COLUMNS);
    let sums: Vec<Vec<f64>> = (0..groups * blocks)
        .into_par_iter()
        .map(|task| {
            let (group, block) = (task / blocks, task % blocks);
            let start = block * COLUMNS;
            let end = columns.min(start + COLUMNS);
            let of_group = rows / groups;
            let parts: Vec<Vec<Sum>> = (0..of_group.div_ceil(ROWS))
                .into_par_iter()
                .map(|chunk| {
                    let mut sums = vec![Sum::default(); end - start];
                    for i in chunk * ROWS..of_group.min((chunk + 1) * ROWS) {
                        let terms = terms(group + i * groups, start, end);
                        for (sum, term) in sums.iter_mut().zip(terms) {
                            sum.add(term);
                        }
                    }
                    sums
                })
                .collect();
            (0..end - start)
                .map(|j| parts.iter().map(|part| part[j].value()).collect::<Sum>())
                .map(Sum::value)
                .collect()
        })
        .collect();
    sums.concat()
}
