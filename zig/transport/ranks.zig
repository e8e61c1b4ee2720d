//! Rank numbers: how many ranks a job may have, and which of them run in one process.

pub const rank_count_max = 16;

/// Ranks [first, end): those of one process.
pub const RankRange = struct {
    first: u32,
    end: u32,

    pub fn count(range: RankRange) u32 {
        return range.end - range.first;
    }
};
