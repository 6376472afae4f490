//! Stream classes: which of a link's streams a frame travels on.
//!
//! A class is a priority and a bound, not a message type: the sender chooses it, the transport
//! only keeps the classes apart, so bulk work never delays a request that is behind it.
//! The class id is the first byte on each stream; see `stream.rs`.

/// What a frame is for. Declaration order is priority order, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Requests of clients and their replies, and requests nodes forward for them.
    Client,
    /// Replication, hints and liveness between nodes.
    Replication,
    /// Repair, transfer and other bulk work between nodes.
    Background,
}

impl Class {
    /// All classes, highest priority first, which is also the order their streams are opened in.
    pub const ALL: [Class; 3] = [Class::Client, Class::Replication, Class::Background];

    /// How many classes there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The byte that opens a stream of this class.
    pub const fn wire_id(self) -> u8 {
        match self {
            Class::Client => 1,
            Class::Replication => 2,
            Class::Background => 3,
        }
    }

    /// The class a stream's first byte names, or `None` for a byte that names none.
    pub const fn from_wire_id(id: u8) -> Option<Class> {
        match id {
            1 => Some(Class::Client),
            2 => Some(Class::Replication),
            3 => Some(Class::Background),
            0 | 4..=u8::MAX => None,
        }
    }

    /// Position in [`Class::ALL`], for arrays with one entry per class.
    pub const fn index(self) -> usize {
        match self {
            Class::Client => 0,
            Class::Replication => 1,
            Class::Background => 2,
        }
    }

    /// QUIC stream priority: a larger number is sent first.
    pub(crate) const fn quic_priority(self) -> i32 {
        match self {
            Class::Client => 2,
            Class::Replication => 1,
            Class::Background => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Class;

    #[test]
    fn wire_ids_and_indexes_round_trip() {
        for (index, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(Class::from_wire_id(class.wire_id()), Some(class));
            assert_eq!(class.index(), index);
        }
        let known = (0..=u8::MAX).filter(|id| Class::from_wire_id(*id).is_some());
        assert_eq!(known.count(), Class::COUNT);
    }

    #[test]
    fn earlier_classes_are_sent_first() {
        let priorities = Class::ALL.map(Class::quic_priority);
        assert!(priorities.is_sorted_by(|higher, lower| higher > lower));
    }
}
