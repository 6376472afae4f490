//! At which place of its row each new owner stands.
//!
//! A request may ask for fewer copies than its bucket keeps; then it uses the first places of a
//! row. So an owner that stays keeps its place, and a new one takes the place of one that left.
//! Where that leaves a choice, the first places are evened out, by exchanges that move neither
//! more nor less: two new owners change seats, or a new owner takes another partition of the same
//! node, where that stands at another place. Zones of a row are kept apart as early as they were.
//! Next to read: `next.rs`.

use super::assign::OwnerSet;
use super::keep::Before;
use super::spread::Spread;
use super::targets::Problem;

/// The owner table: for each partition its n owners in order, all in one row after another.
pub(super) fn seat(
    problem: &Problem,
    before: &Before,
    sets: &[OwnerSet],
    spread: &mut Spread,
) -> Vec<u16> {
    let mut table = Vec::with_capacity(problem.partitions * problem.n);
    for (partition, set) in sets.iter().enumerate() {
        let stays = |owner: &Option<u16>| owner.filter(|owner| set.contains(owner));
        let row = before.row(partition);
        let mut seated: OwnerSet = row.iter().filter_map(stays).collect();
        let mut new: OwnerSet =
            set.iter().copied().filter(|&node| !before.owned(partition, node)).collect();
        spread.shuffle(&mut new);
        for owner in row {
            if let Some(owner) = stays(owner) {
                table.push(owner);
                continue;
            }
            // A zone that nobody of the row is in goes to the first place that is free.
            let pick = (0..new.len()).min_by_key(|&pick| zone_times(problem, &seated, new[pick]));
            let node = new.remove(pick.expect("as many owners come as leave"));
            table.push(node);
            seated.push(node);
        }
    }
    let mut cells: Vec<usize> = (0..table.len()).collect();
    spread.shuffle(&mut cells);
    Rows { problem, before, table }.even_out(&cells)
}

/// How often the zone of `node` stands among `seated`.
fn zone_times(problem: &Problem, seated: &[u16], node: u16) -> usize {
    let zone = |node: u16| problem.zone_of[usize::from(node)];
    seated.iter().filter(|&&other| zone(other) == zone(node)).count()
}

/// The table while first places are evened out.
struct Rows<'a> {
    problem: &'a Problem,
    before: &'a Before,
    table: Vec<u16>,
}

impl Rows<'_> {
    /// Exchanges owners while that makes the shares of first places more even, and there are passes
    /// left. `cells` are all cells of the table, in the order to look at them.
    fn even_out(mut self, cells: &[usize]) -> Vec<u16> {
        // First places of each node above its share, in n-ths: n · first places - owned partitions.
        let n = self.problem.n as i64;
        let mut above = vec![0i64; self.problem.zone_of.len()];
        for (cell, &node) in self.table.iter().enumerate() {
            above[usize::from(node)] += if self.is_first(cell) { n - 1 } else { -1 };
        }
        for _ in 0..PASSES_MAX {
            let swapped = self.swap_new(&mut above, cells);
            if !self.hand_over_others(&mut above, cells) && !swapped {
                break;
            }
        }
        self.table
    }

    /// Exchanges new owners at first places for new ones at later places. True: some.
    fn swap_new(&mut self, above: &mut [i64], cells: &[usize]) -> bool {
        let n = self.problem.n as i64;
        let new = cells.iter().copied().filter(|&cell| self.is_new(cell));
        let (firsts, laters): (Vec<usize>, Vec<usize>) = new.partition(|&cell| self.is_first(cell));
        let mut changed = false;
        for first in firsts {
            let giver = self.table[first];
            let gain =
                |cell: &usize| above[usize::from(giver)] - above[usize::from(self.table[*cell])];
            // One first place less here and more there: better only if they are further apart.
            let better = laters.iter().copied().filter(|cell| gain(cell) > n);
            let best = better.filter(|&cell| self.may_swap(first, cell)).max_by_key(gain);
            if let Some(later) = best {
                above[usize::from(giver)] -= n;
                above[usize::from(self.table[later])] += n;
                self.table.swap(first, later);
                changed = true;
            }
        }
        changed
    }

    /// Lets new owners take another partition of the node whose place they took, where it stands
    /// first if they did not, or later if they did; it stays in the one they took. True: some.
    fn hand_over_others(&mut self, above: &mut [i64], cells: &[usize]) -> bool {
        let n = self.problem.n as i64;
        let mut staying = vec![Vec::new(); above.len()];
        for &cell in cells.iter().filter(|&&cell| !self.is_new(cell)) {
            staying[usize::from(self.table[cell])].push(cell);
        }
        let mut changed = false;
        for &cell in cells {
            let new = self.table[cell];
            let Some(left) = self.before.rows[cell].filter(|left| *left != new) else { continue };
            let apart = above[usize::from(new)] - above[usize::from(left)];
            let (more_even, step) = match self.is_first(cell) {
                true => (apart > n, -n),
                false => (-apart > n, n),
            };
            if !more_even || !self.fits(cell, left) {
                continue;
            }
            let other = staying[usize::from(left)].iter().copied().find(|&other| {
                self.is_first(other) != self.is_first(cell)
                    && self.is_unchanged(other / self.problem.n)
                    && self.may_take(other, new)
            });
            if let Some(other) = other {
                above[usize::from(new)] += step;
                above[usize::from(left)] -= step;
                (self.table[cell], self.table[other]) = (left, new);
                changed = true;
            }
        }
        changed
    }

    fn is_first(&self, cell: usize) -> bool {
        cell.is_multiple_of(self.problem.n)
    }

    fn is_new(&self, cell: usize) -> bool {
        self.before.rows[cell] != Some(self.table[cell])
    }

    fn is_unchanged(&self, partition: usize) -> bool {
        let n = self.problem.n;
        (partition * n..(partition + 1) * n).all(|cell| !self.is_new(cell))
    }

    /// Whether the new owners at these two cells of the table may be exchanged.
    fn may_swap(&self, a: usize, b: usize) -> bool {
        let n = self.problem.n;
        if a / n == b / n {
            let mut row: OwnerSet = self.row(a / n).into();
            row.swap(a % n, b % n);
            return self.apart(&row) >= self.apart(self.row(a / n));
        }
        self.may_take(a, self.table[b]) && self.may_take(b, self.table[a])
    }

    /// Whether `node` may come in at `cell`. It did not own that partition before: else there would
    /// be a table that moves less.
    fn may_take(&self, cell: usize, node: u16) -> bool {
        !self.row(cell / self.problem.n).contains(&node) && self.fits(cell, node)
    }

    /// Whether zones stay within their bound, and as early apart, with `node` at `cell`.
    fn fits(&self, cell: usize, node: u16) -> bool {
        let (partition, place) = (cell / self.problem.n, cell % self.problem.n);
        let mut after: OwnerSet = self.row(partition).into();
        after[place] = node;
        zone_times(self.problem, &after, node) <= self.problem.per_zone()
            && self.apart(&after) >= self.apart(self.row(partition))
    }

    /// How early the zones of a row differ: the sum, over its beginnings, of how many zones each has.
    fn apart(&self, row: &[u16]) -> usize {
        let places = row.iter().enumerate();
        let new_zones =
            places.filter(|(place, node)| zone_times(self.problem, &row[..*place], **node) == 0);
        new_zones.map(|(place, _)| row.len() - place).sum()
    }

    fn row(&self, partition: usize) -> &[u16] {
        let n = self.problem.n;
        &self.table[partition * n..(partition + 1) * n]
    }
}

/// Passes over the table. Each exchange makes first places more even, so this only bounds the time:
/// three do in all layouts tried.
const PASSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClusterId;

    /// The table of `rows` partitions each of these: what was, and the sets that are to be.
    fn seated(problem: &Problem, rows: &[(&[Option<u16>], &[u16])]) -> Vec<Vec<u16>> {
        let before = Before {
            rows: rows.iter().flat_map(|(row, _)| row.iter().copied()).collect(),
            n: problem.n,
        };
        let sets: Vec<OwnerSet> = rows.iter().map(|(_, set)| (*set).into()).collect();
        let table = seat(problem, &before, &sets, &mut Spread::of(ClusterId(1)));
        table.chunks(problem.n).map(<[u16]>::to_vec).collect()
    }

    fn problem(n: usize, partitions: usize, zone_of: &[usize]) -> Problem {
        let zones = zone_of.iter().max().expect("nodes") + 1;
        Problem {
            partitions,
            n,
            zone_of: zone_of.to_vec(),
            weights: vec![100; zone_of.len()],
            zones,
        }
    }

    #[test]
    fn zones_apart_early_go_before_even_first_places() {
        // Node 0 stays; of 1, in its zone, and 2, in another, only 2 may come first.
        let rows: [(&[Option<u16>], &[u16]); 16] = [(&[None, Some(0), None], &[0, 1, 2]); 16];
        let table = seated(&problem(3, 16, &[0, 0, 1]), &rows);
        assert_eq!(table, vec![vec![2, 0, 1]; 16]);
    }

    #[test]
    fn new_owners_of_two_partitions_are_exchanged_for_even_first_places() {
        let rows: [(&[Option<u16>], &[u16]); 8] = [
            (&[None, Some(0)], &[1, 0]),
            (&[None, Some(0)], &[1, 0]),
            (&[None, Some(0)], &[1, 0]),
            (&[None, Some(0)], &[1, 0]),
            (&[Some(0), None], &[2, 0]),
            (&[Some(0), None], &[2, 0]),
            (&[Some(0), None], &[2, 0]),
            (&[Some(0), None], &[2, 0]),
        ];
        let table = seated(&problem(2, 8, &[0, 0, 0]), &rows);
        let first = |node| table.iter().filter(|row| row[0] == node).count();
        assert_eq!((first(0), first(1), first(2)), (4, 2, 2));
    }

    #[test]
    fn a_new_owner_takes_another_partition_of_the_same_node_for_even_first_places() {
        // Node 1 took the place of 0 in the first three rows, always the first one; it may as well
        // take the second place of 0 in one of the others, and 0 stays first where it was.
        let left: (&[Option<u16>], &[u16]) = (&[Some(0), Some(2)], &[1, 2]);
        let stays: (&[Option<u16>], &[u16]) = (&[Some(2), Some(0)], &[2, 0]);
        let table = seated(&problem(2, 6, &[0, 0, 0]), &[left, left, left, stays, stays, stays]);
        let count = |row: [u16; 2]| table.iter().filter(|seated| seated[..] == row).count();
        let counts = (count([1, 2]), count([0, 2]), count([2, 1]), count([2, 0]));
        assert_eq!(counts, (2, 1, 1, 2));
    }

    #[test]
    fn no_exchange_brings_zones_together() {
        // Zones of nodes 0 to 2 and of 3 to 5. Node 3 is always first, 2 never; but 2 beside 0 would put
        // the zones of the first two places together.
        let one: (&[Option<u16>], &[u16]) = (&[None, Some(0), Some(4)], &[3, 0, 4]);
        let other: (&[Option<u16>], &[u16]) = (&[Some(1), Some(5), None], &[1, 5, 2]);
        let table = seated(&problem(3, 4, &[0, 0, 0, 1, 1, 1]), &[one, one, other, other]);
        assert_eq!(table, [[3, 0, 4], [3, 0, 4], [1, 5, 2], [1, 5, 2]].map(|row| row.to_vec()));
    }

    #[test]
    fn no_exchange_fills_a_zone_beyond_its_bound() {
        // Zones of two, four copies: nodes 0 to 3 in one, 4 to 7 in the other. An exchange of 1 and
        // 6 would make first places more even, and zones more apart, and three copies in each.
        let one: (&[Option<u16>], &[u16]) = (&[None, Some(0), Some(4), Some(5)], &[1, 0, 4, 5]);
        let other: (&[Option<u16>], &[u16]) = (&[Some(7), Some(2), None, Some(3)], &[7, 2, 6, 3]);
        let table = seated(&problem(4, 4, &[0, 0, 0, 0, 1, 1, 1, 1]), &[one, one, other, other]);
        let expected = [[1, 0, 4, 5], [1, 0, 4, 5], [7, 2, 6, 3], [7, 2, 6, 3]];
        assert_eq!(table, expected.map(|row| row.to_vec()));
    }
}
