//! What a server says of itself, of the others and of rooms, without asking anybody.

use super::Node;
use crate::chat::Room;
use crate::cluster::Role;
use crate::wire::client::{self, RoomInfo, ServerAddress, StatusRow};

impl Node {
    /// Where clients reach the servers.
    pub(super) fn addresses(&self) -> Vec<ServerAddress> {
        let servers = self.config.servers.iter();
        servers
            .map(|server| ServerAddress {
                id: server.id,
                address: format!("{}:{}", server.host, server.client_port),
                ring: server.ring.0,
                heartbeat_port: server.heartbeat_port,
            })
            .collect()
    }

    /// How this server is.
    pub(super) fn status_row(&self) -> StatusRow {
        let me = self.config.server(self.me);
        StatusRow {
            id: self.me,
            role: match self.cluster.role() {
                Role::Leader => client::Role::Leader,
                Role::Follower => client::Role::Follower,
                Role::Candidate => client::Role::Candidate,
                Role::Learner => client::Role::Learner,
            },
            leader: self.cluster.leader(),
            term: self.cluster.term().0,
            ring_position: me.map_or(0, |me| me.ring.0),
            uptime_ms: self.now.tick.since(self.started).as_ms(),
            clients: self.doors.len().saturating_sub(1) as u64,
            messages: self.state.messages(),
            commit: self.cluster.commit().0,
            applied: self.state.applied().0,
            last_log: self.cluster.last().index.0,
            repairing: self.halted.is_some() || self.cluster.is_repairing(),
            address: me.map_or_else(String::new, |me| format!("{}:{}", me.host, me.client_port)),
        }
    }
}

/// What clients are told of a room.
pub(super) fn room_info(room: &Room) -> RoomInfo {
    RoomInfo {
        room: room.id,
        name: room.name.shown.to_string(),
        topic: room.topic.to_string(),
        members: room.members() as u32,
        position: room.position,
        seq: room.seq,
    }
}
