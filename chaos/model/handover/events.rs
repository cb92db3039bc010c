//! How the model's actions correspond to the events of the core's coordinator.

use flotilla_core::coordination::Event;

/// What stands for an event in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modelled {
    /// The action of this name.
    As(&'static str),
    /// Nothing, because of this.
    Not(&'static str),
}

/// The model's counterpart of an event: its action has the same name. A new
/// event has to be thought about here.
pub fn modelled(event: &Event) -> Modelled {
    match event {
        Event::Tick => Modelled::As("Tick"),
        Event::LeasesListed(_) => Modelled::As("LeasesListed"),
        Event::LeaseChanged(..) => Modelled::As("LeaseChanged"),
        Event::LeaseDeleted(..) => Modelled::Not("a deleted Lease proves nothing: its holder's time goes on"),
        Event::LeaseAnswered(..) => Modelled::As("LeaseAnswered"),
        Event::MapRead { .. } => Modelled::Not("what is read is taken as what a watch shows: MapChanged"),
        Event::MapChanged(_) => Modelled::As("MapChanged"),
        Event::MapDeleted(_) => Modelled::Not("maps are not deleted in the model"),
        Event::MapWritten(_) => Modelled::As("MapWritten"),
        Event::PeerSettled { .. } => Modelled::As("PeerSettled"),
        Event::PeerDeparted { .. } => Modelled::As("PeerDeparted"),
        Event::PeerHello { .. } => Modelled::Not("it only raises the floor of a map without predecessor"),
        Event::Loads { .. } => Modelled::Not("loads only say what the next map will be"),
        Event::Drained(_) => Modelled::As("Drained"),
        Event::Shutdown => Modelled::As("Shutdown"),
    }
}
