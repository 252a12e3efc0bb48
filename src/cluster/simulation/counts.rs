//! How often what happened in simulated lives.

/// How often what happened, to know that everything does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub wins: usize,
    pub manual: usize,
    pub votes: usize,
    pub crashes: usize,
    pub cuts: usize,
    pub moves: usize,
    pub moved: usize,
    pub unplugged: usize,
    pub wrong: usize,
    pub formed: usize,
}

impl Counts {
    pub fn all(&self) -> [usize; 10] {
        let Self {
            wins,
            manual,
            votes,
            crashes,
            cuts,
            moves,
            moved,
            unplugged,
            wrong,
            formed,
        } = *self;
        [
            wins, manual, votes, crashes, cuts, moves, moved, unplugged, wrong, formed,
        ]
    }

    pub fn add(&mut self, other: Self) {
        self.wins += other.wins;
        self.manual += other.manual;
        self.votes += other.votes;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.moves += other.moves;
        self.moved += other.moved;
        self.unplugged += other.unplugged;
        self.wrong += other.wrong;
        self.formed += other.formed;
    }
}
