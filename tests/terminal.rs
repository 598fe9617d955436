//! The programs at a terminal, as people use them: what is typed stays whole whatever arrives or breaks meanwhile, and nothing that
//! others write can draw on the screen.

mod support;

use support::cluster::{Cluster, Options};
use support::terminal::Terminal;

/// Somebody in a room of which all know.
fn person(cluster: &Cluster, name: &str, args: &[&str]) -> Terminal {
    coloured(cluster, name, args, true)
}

fn coloured(cluster: &Cluster, name: &str, args: &[&str], colour: bool) -> Terminal {
    let mut command = cluster.command("syncnet", args);
    command
        .env("TERM", "xterm")
        .env("SYNCNET_USER", name)
        .env("HOME", cluster.path(name))
        .env("SYNCNET_KEY_FILE", cluster.path(&format!("{name}.key")));
    if !colour {
        command.env("NO_COLOR", "1");
    }
    Terminal::start(&command)
}

/// A cluster with the room `ops`, in which nothing was said.
fn with_room() -> Cluster {
    let cluster = Cluster::start(Options::default());
    let mut maker = person(&cluster, "maker", &["ops"]);
    maker.sees("there is no room ops; /create ops makes it");
    maker.enters("/create ops");
    maker.sees("you are in ops");
    maker.enters_last("/quit");
    assert_eq!(maker.ends(), Some(0), "{maker:?}");
    cluster
}

#[test]
fn what_is_half_typed_survives_the_messages_of_others() {
    let cluster = with_room();
    let mut ann = person(&cluster, "ann", &["ops"]);
    ann.sees("you are in ops");
    let mut bob = person(&cluster, "bob", &["ops"]);
    bob.sees("you are in ops");
    ann.sees("bob joined");
    ann.types("half a");
    bob.enters("hello from bob");
    ann.sees("bob: hello from bob");
    ann.prompts("half a");
    ann.types(" line");
    ann.prompts("half a line");
    ann.keys("\r");
    bob.sees("ann: half a line");
    ann.enters("ann's last");
    bob.sees("ann: ann's last");
    bob.enters("bob's last");
    ann.sees("bob: bob's last");
    // Each stands where it was typed; a second one would have come before what has come since.
    assert_eq!(ann.count("half a line"), 1, "{ann:?}");
    assert_eq!(ann.count("ann: "), 0, "{ann:?}");
    assert_eq!(bob.count("hello from bob"), 1, "{bob:?}");
    assert_eq!(bob.count("bob: "), 0, "{bob:?}");
    let said = cluster.messages("server1", "ops").texts("text");
    assert_eq!(said, ["hello from bob", "half a line", "ann's last", "bob's last"]);
}

fn survives_the_end_of(server: &str) {
    let mut cluster = with_room();
    let address = cluster.address(server);
    let mut ann = person(&cluster, "ann", &["-s", &address, "ops"]);
    ann.sees("you are in ops");
    ann.enters("/whereami");
    ann.sees(&format!("on {server} ({address}) of test"));
    ann.enters("before");
    ann.types("while it ");
    cluster.kill(server);
    ann.types("dies");
    ann.prompts("while it dies");
    ann.keys("\r");
    ann.enters("once more");
    ann.sees(&format!("connection to {server} lost"));
    let back = ann.sees("back, on ");
    assert!(!back.contains(server), "{back}");
    ann.enters("after");
    ann.enters("/ping");
    ann.sees("pong from server");
    let at = if server == "server2" { "server1" } else { "server2" };
    support::wait_until("all was posted", || {
        cluster.messages(at, "ops").stdout.contains("\"after\"")
    });
    let tail = cluster.messages(at, "ops");
    assert_eq!(
        tail.texts("text"),
        ["before", "while it dies", "once more", "after"],
        "{tail:?}"
    );
    // Whatever waited was said to have gone out in the end.
    ann.until("nothing is pending", |ann| {
        let rows = ann.rows();
        let last = |what| rows.iter().rposition(|row| row.contains(what));
        last("… pending").is_none() || last("✓ sent") > last("… pending")
    });
    ann.enters_last("/quit");
    assert_eq!(ann.ends(), Some(0), "{ann:?}");
}

#[test]
fn what_is_entered_while_a_follower_dies_arrives_once() {
    survives_the_end_of("server1");
}

#[test]
fn what_is_entered_while_the_leader_dies_arrives_once() {
    survives_the_end_of("server3");
}

#[test]
fn lines_that_come_at_once_are_all_sent_in_their_order() {
    let cluster = with_room();
    let mut ann = person(&cluster, "ann", &["ops"]);
    ann.sees("you are in ops");
    ann.prompts("");
    ann.keys("one\rtwo\rthree\r");
    support::wait_until("the last of them was posted", || {
        cluster.messages("server1", "ops").stdout.contains("\"three\"")
    });
    let said = cluster.messages("server1", "ops").texts("text");
    assert_eq!(said, ["one", "two", "three"], "{ann:?}");
}

#[test]
fn slash_commands_answer() {
    let cluster = with_room();
    let mut bob = person(&cluster, "bob", &["ops"]);
    bob.sees("you are in ops");
    let mut ann = person(&cluster, "ann", &["ops"]);
    ann.sees("you are in ops");
    ann.enters("/join nowhere");
    ann.sees("there is no room nowhere; /create nowhere makes it");
    ann.enters("/create Nowhere");
    ann.sees("you are in Nowhere");
    ann.enters("/create nowhere");
    ann.sees("exists");
    ann.enters("/join ops");
    ann.until("she is back in ops", |ann| ann.count("you are in ops") == 2);
    ann.enters("/topic the pager is quiet");
    bob.sees("ann set the topic: the pager is quiet");
    ann.enters("/topic");
    ann.sees("topic: the pager is quiet");
    ann.enters("/rooms");
    let ops = ann.sees("* ops ");
    assert!(ops.contains("2 here") && ops.ends_with("the pager is quiet"), "{ops}");
    assert!(ann.sees("* Nowhere ").contains("1 here"), "{ann:?}");
    ann.enters("/who");
    let who = ann.sees("in ops: ");
    assert!(who.contains("ann") && who.contains("bob"), "{who}");
    ann.enters("/whereami");
    let here = ann.sees("you are ann in ops, on server");
    assert!(here.ends_with("server3 leads"), "{here}");
    ann.sees("your rooms: ");
    ann.enters("/name anna");
    ann.sees("you are anna now");
    bob.sees("ann is now anna");
    ann.enters("/name bob");
    ann.sees("somebody else has that name");
    ann.enters("/ping");
    assert!(ann.sees("pong from server").ends_with(" ms"), "{ann:?}");
    ann.enters("/status");
    ann.sees("server3 leads in term");
    ann.enters("/help");
    ann.sees("//TEXT ");
    ann.sees("/whereami   ");
    ann.enters("/jion ops");
    ann.sees("there is no command /jion; /help lists them");
    ann.enters("//etc is full");
    bob.sees("anna: /etc is full");
    ann.enters("/leave nowhere");
    ann.sees("you have left Nowhere");
    ann.enters_last("/quit");
    assert_eq!(ann.ends(), Some(0), "{ann:?}");
    bob.sees("anna left");
    // None of the commands was said.
    assert_eq!(cluster.messages("server1", "ops").texts("text"), ["/etc is full"]);
    bob.prompts("");
    bob.keys("\x04");
    assert_eq!(bob.ends(), Some(0), "Ctrl-D: {bob:?}");
}

#[test]
fn ctrl_c_ends_the_chat_at_the_second_time() {
    let cluster = with_room();
    let mut ann = person(&cluster, "ann", &["ops"]);
    ann.sees("you are in ops");
    ann.types("never mind");
    ann.keys("\x03");
    ann.sees("Ctrl-C again, Ctrl-D or /quit leaves the chat");
    ann.prompts("");
    ann.keys("\x03");
    assert_eq!(ann.ends(), Some(0), "{ann:?}");
    let tail = cluster.messages("server1", "ops");
    assert_eq!(tail.stdout, "", "what wasn't entered was said: {tail:?}");
}

#[test]
fn nobody_can_draw_on_the_screens_of_others() {
    let cluster = with_room();
    let ann = person(&cluster, "ann", &["ops"]);
    ann.sees("you are in ops");
    let evil = "a\x1b[7mb\x1b]0;title\x07c\rd\u{9b}7me\u{202e}f";
    let mut mallory = cluster.command("syncnet", &["send", "ops", evil]);
    mallory.env("SYNCNET_USER", "mallory");
    let sent = support::run::run(mallory, "");
    let refused = sent.status.code() != Some(0);
    let mut end = cluster.command("syncnet", &["send", "ops", "the end"]);
    end.env("SYNCNET_USER", "mallory");
    support::run::run(end, "").code(0);
    ann.sees("mallory: the end");
    assert!(refused || ann.count("mallory: a\u{FFFD}[7mb") == 1, "{sent:?} {ann:?}");
    let raw = ann.raw();
    for harm in ["\x1b[7m", "\x1b]", "\x07", "c\rd", "\u{9b}", "\u{202e}"] {
        assert!(!raw.contains(harm), "{harm:?} arrived: {raw:?}");
    }
}

/// Whether a text changes colours: a sequence that ends with `m`.
fn has_colour(raw: &str) -> bool {
    raw.split("\x1b[").skip(1).any(|rest| {
        let end = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        end.starts_with('m')
    })
}

#[test]
fn colours_are_left_out_where_nobody_wants_them() {
    let cluster = with_room();
    let ann = coloured(&cluster, "ann", &["ops"], false);
    ann.sees("you are in ops");
    let mut bob = coloured(&cluster, "bob", &["ops"], true);
    bob.sees("you are in ops");
    bob.enters("hello");
    ann.sees("bob: hello");
    ann.sees("* bob joined");
    assert!(!has_colour(&ann.raw()), "{:?}", ann.raw());
    // The other way round the check would find them.
    assert!(has_colour(&bob.raw()), "{:?}", bob.raw());
}

#[test]
fn watch_draws_the_state_anew_until_ctrl_c() {
    let mut cluster = Cluster::start(Options::default());
    let mut command = cluster.command("syncnetctl", &["watch", "-i", "1"]);
    command.env("TERM", "xterm");
    let mut watch = Terminal::start(&command);
    watch.sees("HEALTHY");
    watch.until("it draws anew", |watch| watch.raw().contains("\x1b[H\x1b[J"));
    cluster.kill("server1");
    watch.sees("DEGRADED");
    watch.until("what was drawn before is gone", |watch| {
        watch.count("DEGRADED") == 1 && watch.count("HEALTHY") == 0
    });
    assert_eq!(watch.count("server2 "), 1, "{watch:?}");
    watch.keys("\x03");
    assert_eq!(watch.ends(), Some(0), "{watch:?}");
}
