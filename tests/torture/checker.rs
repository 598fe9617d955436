//! Compares what was acknowledged with what is there, at every server and every reader.

use std::collections::BTreeMap;

use serde_json::Value;

use super::load::{Load, number};

fn parse(line: &str) -> Result<Value, String> {
    serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))
}

/// The first place where two lists differ, in words.
fn difference(expected: &[String], found: &[String]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let show = |list: &[String]| list.get(at).cloned().unwrap_or_else(|| "nothing".to_string());
    Some(format!(
        "{} and {} lines, which differ from line {}: {} and {}",
        expected.len(),
        found.len(),
        at + 1,
        show(expected),
        show(found)
    ))
}

/// What is wrong with the history of a room: `histories` is what each server has of it, as `syncnet tail --json` prints it.
pub fn check(load: &mut Load, histories: impl FnOnce() -> Vec<(String, Vec<String>)>) -> Vec<String> {
    let said = load.finish();
    let histories = histories();
    let mut complaints = Vec::new();
    let Some((_, history)) = histories.first() else {
        return vec!["no server has a history".to_string()];
    };
    for (server, other) in &histories {
        if let Some(difference) = difference(history, other) {
            complaints.push(format!("{} and {server} have {difference}", histories[0].0));
        }
    }
    for (reader, lines) in load.read(history.len()).iter().enumerate() {
        if let Some(difference) = difference(history, lines) {
            complaints.push(format!(
                "{} and reader {} have {difference}",
                histories[0].0,
                reader + 1
            ));
        }
    }
    let writers: Vec<(&[String], &[String])> = said
        .iter()
        .map(|said| (said.texts.as_slice(), said.acknowledged.as_slice()))
        .chain(load.passers_by().iter().map(|texts| (texts.as_slice(), [].as_slice())))
        .collect();
    match judge(history, &writers) {
        Ok(more) => complaints.extend(more),
        Err(unreadable) => complaints.push(unreadable),
    }
    complaints
}

/// What is wrong with one history, told from what writers said and were told.
fn judge(history: &[String], writers: &[(&[String], &[String])]) -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    // What each of them said, in the order of the room, with the numbers.
    let mut found: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for (at, line) in history.iter().enumerate() {
        let message = parse(line)?;
        let seq = number(&message, "seq");
        if seq != at as u64 + 1 {
            complaints.push(format!("message {} of the room has number {seq}", at + 1));
        }
        let text = message["text"].as_str().unwrap_or_default().to_string();
        let who = text.split(' ').next().unwrap_or_default().to_string();
        found.entry(who).or_default().push((seq, text));
    }
    for (texts, acknowledged) in writers {
        let who = texts
            .first()
            .and_then(|text| text.split(' ').next())
            .unwrap_or_default();
        let there = found.remove(who).unwrap_or_default();
        let in_room: Vec<String> = there.iter().map(|(_, text)| text.clone()).collect();
        if let Some(difference) = difference(texts, &in_room) {
            complaints.push(format!("{who} said and the room has {difference}"));
        }
        for (at, line) in acknowledged.iter().enumerate() {
            let answer = parse(line)?;
            let (said, seq) = (number(&answer, "line"), number(&answer, "seq"));
            if said != at as u64 + 1 {
                complaints.push(format!("acknowledgement {} of {who} is of line {said}", at + 1));
            }
            let expected = there.get(at).map(|(seq, _)| *seq);
            if expected != Some(seq) {
                complaints.push(format!(
                    "line {said} of {who} was acknowledged as {seq}, the room has it as {expected:?}"
                ));
            }
        }
        if !acknowledged.is_empty() && acknowledged.len() != texts.len() {
            complaints.push(format!(
                "{who} said {} lines, {} were acknowledged",
                texts.len(),
                acknowledged.len()
            ));
        }
    }
    for (who, said) in found {
        complaints.push(format!("nobody here is {who:?}, who said {:?}", said[0].1));
    }
    complaints.truncate(10);
    Ok(complaints)
}

/// Each broken promise is noticed, and a kept one isn't complained of.
#[test]
fn the_checker_notices_what_is_lost_doubled_reordered_and_misnumbered() {
    let lines = |texts: &[&str]| -> Vec<String> {
        let line = |(at, text): (usize, &&str)| format!("{{\"seq\":{},\"text\":\"{text}\"}}", at + 1);
        texts.iter().enumerate().map(line).collect()
    };
    let said = ["a 1".to_string(), "a 2".to_string()];
    let acks = |seqs: [u64; 2]| {
        let ack = |(at, seq): (usize, u64)| format!("{{\"line\":{},\"seq\":{seq}}}", at + 1);
        seqs.into_iter().enumerate().map(ack).collect::<Vec<_>>()
    };
    let complaints = |history: &[&str], seqs: [u64; 2]| {
        judge(&lines(history), &[(&said, &acks(seqs))])
            .expect("it can be read")
            .len()
    };
    assert_eq!(complaints(&["a 1", "a 2"], [1, 2]), 0);
    assert!(complaints(&["a 1"], [1, 2]) > 0, "a lost message");
    assert!(complaints(&["a 1", "a 2", "a 2"], [1, 2]) > 0, "a doubled message");
    assert!(complaints(&["a 2", "a 1"], [1, 2]) > 0, "another order");
    assert!(complaints(&["a 1", "a 2"], [1, 3]) > 0, "another number");
    assert!(complaints(&["a 1", "a 2", "b 1"], [1, 2]) > 0, "a stranger");
    let short = acks([1, 2])[..1].to_vec();
    let told = judge(&lines(&["a 1", "a 2"]), &[(&said, &short)]).expect("it can be read");
    assert_eq!(told.len(), 1, "an acknowledgement that never came: {told:?}");
    assert!(difference(&said, &said[..1]).is_some());
}
