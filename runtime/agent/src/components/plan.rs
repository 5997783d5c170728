//! From whom each chunk of a component is taken. Pure.
//!
//! Nodes of a site that fetch the same component share the work: each chunk has one of them that brings it to the site, and
//! the others take it from there. They all are told the same, and so come to the same without asking one another. Where that
//! fails for a moment a node says that it does not bring a chunk, and who has asked brings it itself.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{Chunk, NodeId};
use dunlin_protocol::Neighbour;

/// From whom chunks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The neighbour with this number.
    Neighbour(usize),
    /// The coordinator, from whom all can be had.
    Coordinator,
}

/// What is known of who has a component.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) here: &'a NodeId,
    pub(super) chunks: &'a [Chunk],
    pub(super) neighbours: &'a [Neighbour],
    /// The numbers of the neighbours that could not be asked, or have not given what they were asked for.
    pub(super) failed: BTreeSet<usize>,
    /// The numbers of the chunks of which those who were to bring them say that they do not.
    pub(super) declined: BTreeSet<usize>,
}

/// A node that fetches the component: this one, or the neighbour with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetcher {
    Here,
    Neighbour(usize),
}

impl Plan<'_> {
    /// Returns from whom the chunks with these numbers are to be taken now.
    pub(super) fn sources(&self, missing: &[usize]) -> BTreeMap<Source, Vec<usize>> {
        let bringers = self.bringers();
        let givers: Vec<usize> = self.numbers(|neighbour| neighbour.has_all).collect();
        let mut taken = vec![0; givers.len()];
        let mut sources: BTreeMap<Source, Vec<usize>> = BTreeMap::new();
        for &number in missing {
            let source = match bringers.get(number) {
                _ if self.declined.contains(&number) => Source::Coordinator,
                Some(Fetcher::Neighbour(neighbour)) => Source::Neighbour(*neighbour),
                Some(Fetcher::Here) | None => match least(&taken) {
                    Some(giver) => {
                        taken[giver] += self.length(number);
                        Source::Neighbour(givers[giver])
                    }
                    None => Source::Coordinator,
                },
            };
            sources.entry(source).or_default().push(number);
        }
        sources
    }

    /// Tells whether this node brings what is taken from there to others too.
    pub(super) fn brings(&self, source: Source) -> bool {
        match source {
            Source::Coordinator => true,
            Source::Neighbour(number) => {
                self.neighbours.get(number).is_some_and(|neighbour| neighbour.has_all)
            }
        }
    }

    /// Tells whether others fetch the component at the same time.
    pub(super) fn is_shared(&self) -> bool {
        self.numbers(|neighbour| !neighbour.has_all).next().is_some()
    }

    /// Returns who brings each chunk to the site.
    fn bringers(&self) -> Vec<Fetcher> {
        let mut fetchers: Vec<(&NodeId, Fetcher)> = vec![(self.here, Fetcher::Here)];
        for (number, neighbour) in self.neighbours.iter().enumerate().filter(|(_, it)| !it.has_all) {
            fetchers.push((&neighbour.node, Fetcher::Neighbour(number)));
        }
        fetchers.sort_by_key(|(node, _)| *node);
        let mut fetchers: Vec<Fetcher> = fetchers.into_iter().map(|(_, fetcher)| fetcher).collect();
        let all = 0..self.chunks.len();
        let mut bringers = self.shared_out(&fetchers, all.clone());
        // Only what those had to bring that have failed is shared out anew: who has not heard of it yet goes on with the
        // rest as it was.
        let has_failed =
            |fetcher: &Fetcher| matches!(fetcher, Fetcher::Neighbour(number) if self.failed.contains(number));
        fetchers.retain(|fetcher| !has_failed(fetcher));
        let left: Vec<usize> = all.filter(|number| has_failed(&bringers[*number])).collect();
        for (number, bringer) in left.iter().zip(self.shared_out(&fetchers, left.iter().copied())) {
            bringers[*number] = bringer;
        }
        bringers
    }

    /// Shares these chunks out, so that each has about as many bytes.
    fn shared_out(&self, among: &[Fetcher], numbers: impl IntoIterator<Item = usize>) -> Vec<Fetcher> {
        let mut taken = vec![0; among.len()];
        let mut share = |number| {
            let next = least(&taken).unwrap_or(0);
            taken[next] += self.length(number);
            among[next]
        };
        numbers.into_iter().map(&mut share).collect()
    }

    fn length(&self, number: usize) -> u64 {
        self.chunks.get(number).map_or(0, |chunk| chunk.length.into())
    }

    fn numbers(&self, wanted: impl Fn(&Neighbour) -> bool) -> impl Iterator<Item = usize> {
        let all = self.neighbours.iter().enumerate();
        all.filter(move |(number, neighbour)| wanted(neighbour) && !self.failed.contains(number))
            .map(|(number, _)| number)
    }
}

/// Returns where the least is, the first of several.
fn least(taken: &[u64]) -> Option<usize> {
    (0..taken.len()).min_by_key(|place| taken[*place])
}

#[cfg(test)]
mod tests {
    use dunlin_model::Digest;

    use super::*;

    fn name(number: usize) -> NodeId {
        format!("node-{number:02}").parse().unwrap()
    }

    fn chunks(count: usize) -> Vec<Chunk> {
        let length = |number: usize| 20_000 + u32::try_from(number * 7_919 % 90_000).unwrap();
        let chunk =
            |number: usize| Chunk { digest: Digest::of(&number.to_be_bytes()), length: length(number) };
        (0..count).map(chunk).collect()
    }

    fn neighbours(here: usize, fetching: usize, with_all: usize) -> Vec<Neighbour> {
        let all = (0..fetching + with_all).filter(|number| *number != here);
        let address = "10.0.0.1:4433".parse().unwrap();
        all.map(|number| Neighbour { node: name(number), address, has_all: number >= fetching }).collect()
    }

    /// Returns from where a node takes each of all chunks.
    fn plan(here: usize, chunks: &[Chunk], neighbours: &[Neighbour], failed: &[NodeId]) -> Vec<String> {
        let has_failed = |neighbour: &Neighbour| failed.contains(&neighbour.node);
        let failed = (0..neighbours.len()).filter(|number| has_failed(&neighbours[*number])).collect();
        let plan = Plan { here: &name(here), chunks, neighbours, failed, declined: BTreeSet::new() };
        let missing: Vec<usize> = (0..chunks.len()).collect();
        let mut from = vec![String::new(); chunks.len()];
        for (source, numbers) in plan.sources(&missing) {
            for number in numbers {
                from[number] = match source {
                    Source::Coordinator => "coordinator".to_owned(),
                    Source::Neighbour(neighbour) => neighbours[neighbour].node.to_string(),
                };
            }
        }
        from
    }

    #[test]
    fn alone_all_is_taken_from_the_coordinator() {
        assert_eq!(plan(0, &chunks(5), &[], &[]), ["coordinator"; 5]);
    }

    #[test]
    fn of_those_who_fetch_together_one_brings_each_chunk_and_the_others_take_it_from_there() {
        let chunks = chunks(160);
        let plans: Vec<_> = (0..20).map(|here| plan(here, &chunks, &neighbours(here, 20, 0), &[])).collect();
        let mut brought = [0; 20];
        for number in 0..chunks.len() {
            let bringers: Vec<usize> = (0..20).filter(|node| plans[*node][number] == "coordinator").collect();
            let [bringer] = bringers[..] else { panic!("{bringers:?} bring chunk {number}") };
            brought[bringer] += chunks[number].length;
            for plan in plans.iter().enumerate().filter(|(node, _)| *node != bringer).map(|(_, plan)| plan) {
                assert_eq!(plan[number], name(bringer).to_string());
            }
        }
        let (most, least) = (brought.iter().max().unwrap(), brought.iter().min().unwrap());
        assert!(most - least <= 110_000, "the shares are uneven: {brought:?}");
    }

    #[test]
    fn what_those_had_to_bring_that_have_failed_is_brought_by_the_others_and_all_agree_by_whom() {
        let chunks = chunks(40);
        let failed = [name(1)];
        let before = plan(0, &chunks, &neighbours(0, 4, 0), &[]);
        let after: Vec<_> =
            [0, 2, 3].map(|here| plan(here, &chunks, &neighbours(here, 4, 0), &failed)).into();
        for number in 0..chunks.len() {
            let bringers = after.iter().filter(|plan| plan[number] == "coordinator").count();
            assert_eq!(bringers, 1, "chunk {number}");
            assert_ne!(after[0][number], failed[0].to_string());
            if before[number] != failed[0].to_string() {
                assert_eq!(before[number], after[0][number], "the rest stays as it was");
            }
        }
    }

    #[test]
    fn what_nobody_brings_is_brought_by_who_needs_it() {
        let (chunks, neighbours) = (chunks(30), neighbours(0, 3, 2));
        let declined: BTreeSet<usize> = (0..30).collect();
        let here = name(0);
        let plan =
            Plan { here: &here, chunks: &chunks, neighbours: &neighbours, failed: BTreeSet::new(), declined };
        let sources: Vec<Source> = plan.sources(&(0..30).collect::<Vec<_>>()).into_keys().collect();
        assert_eq!(sources, [Source::Coordinator]);
    }

    #[test]
    fn the_coordinator_is_asked_last() {
        let chunks = chunks(30);
        let from = plan(0, &chunks, &neighbours(0, 1, 2), &[]);
        assert!(from.contains(&name(1).to_string()) && from.contains(&name(2).to_string()), "{from:?}");
        assert!(!from.contains(&"coordinator".to_owned()), "{from:?}");
        assert_eq!(plan(0, &chunks, &neighbours(0, 1, 2), &[name(1), name(2)]), ["coordinator"; 30]);
    }
}
