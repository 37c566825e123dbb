//! What a seed is made of: sizes, speeds, and which kinds of faults happen.

use coco_consensus::Settings;

use crate::random::Random;

/// A tick of a node's clock, if it runs right.
pub const TICK_US: u64 = 10_000;

/// Kinds of faults that a plan switches on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Some nodes are cut off from the others.
    Partition,
    /// One link works in one direction only.
    OneWay,
    /// A link comes and goes.
    Flapping,
    /// A node is gone with what it had in memory; another takes its place.
    Crash,
    /// A node stands still for a while.
    Pause,
    /// A node's disk takes long.
    SlowDisk,
    /// A node's disk is full: it cannot go on.
    FullDisk,
    /// The primary hands over.
    Transfer,
    /// A node that works is replaced.
    Replace,
    /// The primary is cut off with one backup; its successor, as soon as there is one, is cut off
    /// from all but the former primary. So a batch may be taken back and come again.
    Usurp,
    /// A bit on a disk turns.
    BitFlip,
    /// The host puts back what was on a disk long ago.
    RollBack,
    /// A disk reports syncs that it does not do.
    LyingSync,
    /// A clock jumps ahead.
    ClockJump,
    /// A clock stands still, the node does not.
    ClockStop,
    /// A clock runs at another speed, up to three times slower or faster.
    ClockDrift,
}

const FAULTS: [Fault; 9] = [
    Fault::Partition,
    Fault::OneWay,
    Fault::Flapping,
    Fault::Crash,
    Fault::Pause,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::Transfer,
    Fault::Replace,
];

/// Faults of a worse world; half of the runs have none of them.
const WORSE: [Fault; 7] = [
    Fault::Usurp,
    Fault::BitFlip,
    Fault::RollBack,
    Fault::LyingSync,
    Fault::ClockJump,
    Fault::ClockStop,
    Fault::ClockDrift,
];

/// A run's choices (swarm testing, Groce et al. 2012: few kinds at once find more than all).
#[derive(Clone, Debug)]
pub struct Plan {
    /// Voters.
    pub nodes: u64,
    /// Clients that write and read.
    pub clients: u64,
    /// Keys that they use.
    pub keys: u64,
    /// The longest a client waits between operations.
    pub think_us: u64,
    /// How long faults happen.
    pub chaos_us: u64,
    /// Time between two faults, at most.
    pub fault_every_us: u64,
    /// The kinds that happen.
    pub faults: Vec<Fault>,
    /// The longest an ordinary frame takes.
    pub delay_us: u64,
    /// Frames lost.
    pub loss_per_mille: u64,
    /// Frames doubled.
    pub double_per_mille: u64,
    /// Frames that others overtake.
    pub late_per_mille: u64,
    /// Clocks run this much faster or slower, at most.
    pub skew_per_mille: u64,
    /// The longest a sync takes.
    pub sync_us: u64,
    /// Whether nodes drop the log that is committed.
    pub compacts: bool,
    /// The consensus settings; each node has a seed of its own.
    pub settings: Settings,
    /// Frames that the host changes, brings to another node, or repeats much later.
    pub tampered_per_mille: u64,
    /// Ledgers that the host changes when a node is brought one.
    pub wrong_ledgers_per_mille: u64,
    /// Whether a process finds what one that has crashed left on its disk.
    pub keeps_disks: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(random: &mut Random) -> Self {
        let mut sometimes = |value: u64| if random.chance(500) { value } else { 0 };
        let (loss_per_mille, double_per_mille) = (sometimes(1), sometimes(15));
        let (late_per_mille, skew_per_mille) = (sometimes(30), sometimes(300));
        let faults = FAULTS.into_iter().filter(|_| sometimes(1) == 1).collect();
        let small_messages = sometimes(1) == 1;
        let compacts = sometimes(1) == 1;
        // Small messages one by one are slower than a lone primary: a learner would never catch up.
        let max_inflight_messages = random.pick(&[1, 4, 64]).unwrap_or(1);
        let settings = Settings {
            max_message_bytes: if small_messages { 64 } else { 1 << 20 },
            max_inflight_messages: max_inflight_messages.max(if small_messages { 32 } else { 1 }),
            max_uncommitted_bytes: random.pick(&[4 << 10, 1 << 20]).unwrap_or(1),
            max_kept_bytes: random.pick(&[0, 4 << 10, 1 << 20]).unwrap_or(0),
            install_retry_ticks: 30,
            max_election_ticks: random.pick(&[14, 30]).unwrap_or(30),
            ..Settings::default()
        };
        Self {
            nodes: random.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5]).unwrap_or(3),
            clients: random.between(2, 4),
            keys: random.between(2, 6),
            think_us: random.pick(&[30_000, 100_000, 200_000]).unwrap_or(100_000),
            chaos_us: random.between(1_500_000, 4_000_000),
            fault_every_us: random.pick(&[80_000, 300_000, 800_000]).unwrap_or(400_000),
            faults,
            delay_us: random.pick(&[400, 2_000, 10_000]).unwrap_or(2_000),
            loss_per_mille: loss_per_mille * random.pick(&[10, 50, 150]).unwrap_or(10),
            double_per_mille,
            late_per_mille,
            skew_per_mille,
            sync_us: random.pick(&[300, 3_000, 15_000]).unwrap_or(3_000),
            compacts,
            settings,
            tampered_per_mille: 0,
            wrong_ledgers_per_mille: 0,
            keeps_disks: false,
        }
    }

    /// The same in a worse world.
    #[must_use]
    pub fn worsened(mut self, random: &mut Random) -> Self {
        if random.chance(500) {
            self.faults.extend(WORSE.into_iter().filter(|_| random.chance(400)));
            if self.faults.contains(&Fault::Usurp) {
                // Fewer cannot be led without the batch and then with it.
                self.nodes = 5;
                self.faults.extend([Fault::Usurp; 3]);
            }
            let mut sometimes = |value: u64| if random.chance(400) { value } else { 0 };
            (self.tampered_per_mille, self.wrong_ledgers_per_mille) =
                (sometimes(10), sometimes(400));
        }
        self.keeps_disks = random.chance(500);
        self
    }
}
