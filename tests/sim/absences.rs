//! People who are away: a client that hangs for seconds reads nothing and sends nothing, while its connection stands or is taken for dead.

use syncnet::client::calls::Input;

use super::world::{Happening, World};

impl World {
    /// The client's process hangs: what happens to it waits. `forgotten`: its server takes it for gone.
    pub fn hang_person(&mut self, at: usize, forgotten: bool) {
        self.say(|| format!("person {at} hangs, forgotten: {forgotten}"));
        self.counts.one("clients that hung");
        self.hung.insert(at);
        if forgotten && let Some(conn) = self.people[at].conn {
            self.put_on_stream(conn, true, None);
        }
    }

    /// It goes on, and finds all that waited, in order.
    pub fn resume_person(&mut self, at: usize) {
        if !self.hung.remove(&at) {
            return;
        }
        self.say(|| format!("person {at} goes on"));
        let (of, others) = std::mem::take(&mut self.frozen_people)
            .into_iter()
            .partition(|(person, _)| *person == at);
        self.frozen_people = others;
        let of: Vec<(usize, Happening)> = of;
        for (_, happening) in of {
            self.happen(happening);
        }
        self.people[at].forget_wake();
        self.tell_person(at, Input::Timer);
    }

    /// Whom this concerns, if it is someone who hangs.
    pub(super) fn hung_person(&self, happening: &Happening) -> Option<usize> {
        if self.hung.is_empty() {
            return None;
        }
        let person = match *happening {
            Happening::Wake { person, .. } | Happening::Act { person } => person,
            Happening::Connected { conn }
            | Happening::Stream {
                conn, to_server: false, ..
            } => self.conns.get(&conn)?.person,
            _ => return None,
        };
        self.hung.contains(&person).then_some(person)
    }
}
