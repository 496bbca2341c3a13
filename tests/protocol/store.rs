//! With a store: what is on disk before what leaves, and what the next process makes of it.

use super::*;
use coracle::protocol::record::Identity;
use coracle::{StoreError, StoreErrorKind};

/// 2027-01-15T08:00:00Z.
const DATE: Duration = Duration::from_secs(1_800_000_000);

/// PUBLISH of `a` to `t` with identifier 1, at QoS 1 and 2, for 3.1.1.
const PUBLISH_1: &[u8] = b"\x32\x06\0\x01t\0\x01a";
const PUBLISH_2: &[u8] = b"\x34\x06\0\x01t\0\x01a";

/// The same with DUP.
const AGAIN_1: &[u8] = b"\x3A\x06\0\x01t\0\x01a";
const AGAIN_2: &[u8] = b"\x3C\x06\0\x01t\0\x01a";

const PUBACK: &[u8] = b"\x40\x02\0\x01";
const PUBREC: &[u8] = b"\x50\x02\0\x01";
const PUBREL: &[u8] = b"\x62\x02\0\x01";
const PUBCOMP: &[u8] = b"\x70\x02\0\x01";

/// Plays `script` with a disk that commits when the script says so, and the connection open.
fn play_slowly(config: &Config, script: impl Fn(&mut Scene)) {
    play_with(&[Some(Disk::default())], config, |scene| {
        scene.open();
        scene.commits();
        script(scene);
    });
}

impl Scene {
    /// A process begins with what is on this disk.
    pub(super) fn boot(&mut self, disk: Disk) {
        self.boot_at(disk, DATE);
    }

    fn boot_at(&mut self, disk: Disk, date: Duration) {
        let restored = self
            .protocol
            .restore(self.now, date, &disk.read())
            .expect("the records are whole");
        self.got
            .extend(restored.kept.into_iter().map(|(kept, message)| Got {
                message,
                receipt: None,
                kept: Some(kept),
            }));
        self.disk = Some(disk);
    }

    /// The batch that was handed over is on disk.
    #[track_caller]
    fn commits(&mut self) {
        assert!(self.commit(), "a batch is on its way");
        self.turn();
    }

    /// The process is killed, and with it the batch on its way; another one begins.
    fn dies(&mut self) {
        self.dies_for(Duration::ZERO);
    }

    fn dies_for(&mut self, span: Duration) {
        let mut disk = self.disk.take().expect("a script with a disk");
        disk.under_way = None;
        let config = self.protocol.config().clone();
        let mut next = Self::new(config, self.feed);
        next.now = self.now;
        next.start = self.start;
        next.hold = self.hold;
        next.boot_at(disk, DATE + span);
        *self = next;
    }

    /// The connection of the next process finds the session.
    fn finds_session(&mut self) {
        let version = self.protocol.config().version;
        self.open_with(if version == Version::V5_0 {
            PRESENT_5
        } else {
            PRESENT
        });
    }

    /// Nothing but the session is left on disk.
    #[track_caller]
    fn is_forgotten(&self) {
        let disk = self.disk.as_ref().expect("a script with a disk");
        let keys: Vec<_> = disk.records.keys().map(|key| format!("{key:x}")).collect();
        assert_eq!(keys, ["100000000000000"]);
    }
}

#[test]
fn a_message_leaves_once_it_is_on_disk_and_only_then_it_is_sent() {
    for (qos, publish) in [(Qos::AtLeastOnce, PUBLISH_1), (Qos::ExactlyOnce, PUBLISH_2)] {
        play_slowly(&v3(), |scene| {
            let sent = scene.publish(qos, b"a", Wait::Sent);
            scene.sends_nothing();
            scene.goes_on(sent);
            scene.commits();
            scene.sends(&[publish]);
            scene.is_sent(sent);
        });
    }
}

#[test]
fn what_gathers_while_a_batch_is_on_its_way_goes_with_the_next_one() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"c", Wait::None);
        scene.commits();
        scene.sends(&[PUBLISH_1]);
        scene.commits();
        scene.sends(&[b"\x32\x06\0\x01t\0\x02b", b"\x32\x06\0\x01t\0\x03c"]);
    });
}

#[test]
fn qos_0_does_not_wait_for_the_disk() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtMostOnce, b"z", Wait::None);
        scene.sends(&[b"\x30\x04\0\x01tz"]);
    });
}

#[test]
fn a_message_that_may_have_left_is_sent_again_with_dup_under_its_identifier() {
    // [MQTT-4.4.0-1], [MQTT-3.3.1-1]
    for (qos, publish, again) in [
        (Qos::AtLeastOnce, PUBLISH_1, AGAIN_1),
        (Qos::ExactlyOnce, PUBLISH_2, AGAIN_2),
    ] {
        play_slowly(&v3(), |scene| {
            scene.publish(qos, b"a", Wait::None);
            scene.commits();
            scene.sends(&[publish]);
            scene.dies();
            scene.finds_session();
            scene.sends(&[again]);
        });
    }
}

#[test]
fn a_message_that_was_not_on_disk_is_gone() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.dies();
        scene.finds_session();
        scene.sends_nothing();
        assert_eq!(scene.protocol.unfinished(), 0);
    });
}

#[test]
fn a_message_that_was_accepted_offline_gets_its_identifier_when_it_may_leave() {
    // Else a QoS 2 message that never left would be given up with the session.
    play_slowly(&v3(), |scene| {
        scene.cut();
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.commits();
        scene.dies();
        scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
        scene.finds_session();
        scene.sends_nothing();
        scene.commits();
        // `b` was on its way to the disk before the connection; the identifiers follow.
        scene.commits();
        scene.sends(&[PUBLISH_2, b"\x34\x06\0\x01t\0\x02b"]);
    });
}

#[test]
fn the_identifiers_of_an_earlier_process_are_in_use() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.commits();
        scene.dies();
        scene.finds_session();
        scene.sends(&[AGAIN_1]);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.commits();
        scene.sends(&[b"\x32\x06\0\x01t\0\x02b"]);
        scene.receive(PUBACK);
        scene.receive(b"\x40\x02\0\x02");
        while scene.commit() {
            scene.turn();
        }
        scene.is_forgotten();
    });
}

#[test]
fn the_order_of_the_calls_outlives_the_process() {
    // [MQTT-4.6.0-1]
    let narrow = Config { window: 1, ..v3() };
    play_slowly(&narrow, |scene| {
        for payload in [b"a", b"b", b"c"] {
            scene.publish(Qos::ExactlyOnce, payload, Wait::None);
        }
        scene.commits();
        scene.commits();
        scene.sends(&[PUBLISH_2]);
        scene.dies();
        scene.finds_session();
        scene.sends(&[AGAIN_2]);
        scene.receive(PUBREC);
        scene.commits();
        scene.sends(&[PUBREL]);
        scene.receive(PUBCOMP);
        scene.commits();
        scene.sends(&[b"\x34\x06\0\x01t\0\x02b"]);
    });
}

#[test]
fn pubrel_waits_until_the_release_is_on_disk() {
    // [MQTT-4.3.3-6]
    play_slowly(&v3(), |scene| {
        let acknowledged = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.commits();
        scene.sends(&[PUBLISH_2]);
        scene.receive(PUBREC);
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[PUBREL]);
        scene.receive(PUBCOMP);
        scene.is_acknowledged(acknowledged, Reason::SUCCESS);
        scene.commits();
        scene.is_forgotten();
    });
}

#[test]
fn a_release_that_is_on_disk_is_never_published_again() {
    // [MQTT-4.3.3-6]
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.commits();
        scene.receive(PUBREC);
        scene.commits();
        scene.sends(&[PUBLISH_2, PUBREL]);
        scene.dies();
        scene.finds_session();
        scene.sends(&[PUBREL]);
        scene.receive(PUBCOMP);
        scene.commits();
        scene.is_forgotten();
    });
}

#[test]
fn a_release_that_is_not_on_disk_never_left_and_the_message_is_sent_again() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.commits();
        scene.receive(PUBREC);
        scene.sends(&[PUBLISH_2]);
        scene.dies();
        scene.finds_session();
        scene.sends(&[AGAIN_2]);
        scene.receive(PUBREC);
        scene.commits();
        scene.sends(&[PUBREL]);
    });
}

#[test]
fn pubrec_waits_until_the_identifier_is_on_disk() {
    // [MQTT-4.3.3-8]
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[PUBREC]);
    });
}

#[test]
fn pubcomp_waits_until_the_identifier_is_gone_from_disk() {
    // [MQTT-4.3.3-12]
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.commits();
        scene.sends(&[PUBREC]);
        scene.receive(PUBREL);
        scene.sends_nothing();
        // Sent again meanwhile, it is answered no earlier.
        scene.receive(PUBREL);
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[PUBCOMP, PUBCOMP]);
        scene.is_forgotten();
    });
}

#[test]
fn a_message_of_qos_2_that_was_taken_is_not_delivered_by_the_next_process() {
    // [MQTT-4.3.3-10]
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.commits();
        scene.dies();
        scene.finds_session();
        scene.receive(AGAIN_2);
        scene.gets_nothing();
        scene.sends(&[PUBREC]);
        scene.receive(PUBREL);
        scene.commits();
        scene.sends(&[PUBCOMP]);
    });
}

#[test]
fn a_take_that_is_not_on_disk_was_none() {
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.dies();
        scene.finds_session();
        scene.receive(AGAIN_2);
        scene.gets("t", b"a");
    });
}

#[test]
fn without_dup_an_identifier_of_an_earlier_process_names_another_message() {
    // The broker may have lost the session between the two, and the CONNACK that told of it.
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.commits();
        scene.dies();
        scene.finds_session();
        scene.receive(b"\x34\x06\0\x01t\0\x01b");
        scene.gets("t", b"b");
    });
}

#[test]
fn a_pubrec_that_waited_for_the_disk_dies_with_its_link() {
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.cut();
        scene.finds_session();
        scene.receive(AGAIN_2);
        scene.gets_nothing();
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[PUBREC]);
    });
}

#[test]
fn a_message_of_qos_1_that_is_taken_needs_no_disk() {
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_1);
        scene.gets("t", b"a");
        scene.sends(&[PUBACK]);
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn a_message_that_is_not_taken_in_time_is_on_disk_before_puback() {
    // [MQTT-4.3.2-4]
    play_slowly(&v3(), |scene| {
        scene.hold = true;
        scene.receive(PUBLISH_1);
        scene.wait(5);
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[PUBACK]);
        scene.effects.clear();
        scene.dies();
        let got = scene.gets("t", b"a");
        scene.take(&got);
        scene.commits();
        scene.is_forgotten();
    });
}

#[test]
fn subscribe_waits_until_its_filters_are_on_disk() {
    play_slowly(&v3(), |scene| {
        scene.subscribe(&["f"], Qos::AtLeastOnce, Wait::None);
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[b"\x82\x06\0\x01\0\x01f\x01"]);
        scene.receive(b"\x90\x03\0\x01\x01");
        scene.effects.clear();
        scene.unsubscribe(&["f"], Wait::None);
        scene.sends(&[b"\xA2\x05\0\x02\0\x01f"]);
        scene.receive(b"\xB0\x02\0\x02");
        scene.commits();
        scene.is_forgotten();
    });
}

#[test]
fn subscribe_waits_until_what_connack_has_changed_is_on_disk() {
    // Whose session it is: without it, the next process would discard what came for this subscription.
    play_with(&[Some(Disk::default())], &v3(), |scene| {
        scene.subscribe(&["f"], Qos::AtLeastOnce, Wait::None);
        scene.commits();
        scene.open();
        scene.sends_nothing();
        scene.commits();
        scene.sends(&[b"\x82\x06\0\x01\0\x01f\x01"]);
    });
    // That identifiers of the lost session mean nothing any more: the next process would take a message of
    // the new one for a repeat.
    play_slowly(&v3(), |scene| {
        scene.subscribe(&["t"], Qos::ExactlyOnce, Wait::None);
        scene.commits();
        scene.receive(b"\x90\x03\0\x01\x02");
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.commits();
        scene.cut();
        scene.wire.clear();
        scene.open_with(CONNACK);
        scene.sends_nothing();
        scene.dies();
        // Nothing of the new session could have come to the process that is dead.
        scene.open_with(CONNACK);
        scene.commits();
        scene.receive(b"\x3C\x06\0\x01t\0\x01b");
        scene.gets("t", b"b");
    });
}

#[test]
fn a_filter_that_is_refused_is_forgotten() {
    play_slowly(&v3(), |scene| {
        scene.subscribe(&["f"], Qos::AtLeastOnce, Wait::None);
        scene.commits();
        scene.receive(b"\x90\x03\0\x01\x80");
        scene.commits();
        scene.is_forgotten();
        scene.wire.clear();
        scene.effects.clear();
    });
}

#[test]
fn a_filter_that_is_not_made_again_in_time_is_unsubscribed() {
    play_slowly(&v3(), |scene| {
        scene.subscribe(&["f", "g"], Qos::AtLeastOnce, Wait::None);
        scene.commits();
        scene.wire.clear();
        scene.receive(b"\x90\x04\0\x01\x01\x01");
        scene.effects.clear();
        scene.dies();
        scene.subscribe(&["g"], Qos::AtLeastOnce, Wait::None);
        scene.finds_session();
        scene.commits();
        scene.sends(&[b"\x82\x06\0\x01\0\x01g\x01"]);
        scene.wait(4);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[b"\xA2\x05\0\x02\0\x01f"]);
        assert_eq!(scene.effect(), "Disinherited");
        scene.effects.clear();
    });
}

#[test]
fn a_session_that_the_broker_lost_meanwhile_is_sent_anew() {
    // Situation 4: QoS 1 is sent anew; QoS 2 that may have arrived ends; what had no identifier is sent.
    let narrow = Config { window: 2, ..v3() };
    play_slowly(&narrow, |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
        scene.publish(Qos::ExactlyOnce, b"c", Wait::None);
        scene.commits();
        scene.commits();
        scene.sends(&[PUBLISH_1, b"\x34\x06\0\x01t\0\x02b"]);
        scene.dies();
        scene.connect();
        scene.wire.clear();
        scene.receive(CONNACK);
        let ended = scene.effect();
        assert!(
            ended.contains("the broker lost the session (perhaps sent)"),
            "{ended}"
        );
        assert_eq!(scene.effect(), "Connected(Lost)");
        scene.commits();
        scene.sends(&[b"\x32\x06\0\x01t\0\x03a", b"\x34\x06\0\x01t\0\x04c"]);
    });
}

#[test]
fn another_client_identifier_does_not_go_on_with_the_session() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.commits();
        scene.wire.clear();
        let disk = scene.disk.take().expect("a script with a disk");
        let other = Config::new(Version::V3_1_1, "d");
        let mut next = Scene::new(other, scene.feed);
        next.boot(disk);
        *scene = next;
        // What is there under the other name is an earlier process's: it is wiped.
        scene.connect();
        scene.wire.clear();
        scene.receive(PRESENT);
        scene.sends(&[DISCONNECT]);
        scene.cut();
        scene.connect();
        scene.sends(&[b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01d"]);
        scene.receive(CONNACK);
        scene.sends(&[DISCONNECT]);
        scene.cut();
        scene.connect();
        scene.wire.clear();
        scene.receive(CONNACK);
        scene.effects.clear();
        while scene.commit() {
            scene.turn();
        }
        scene.sends(&[b"\x32\x06\0\x01t\0\x02a"]);
    });
}

#[test]
fn an_identifier_that_the_broker_chose_outlives_the_process() {
    let unnamed = Config {
        client_id: String::new(),
        ..v5()
    };
    play_with(&[Some(Disk::default())], &unnamed, |scene| {
        scene.open_with(b"\x20\x07\0\0\x04\x12\0\x01x");
        scene.commits();
        scene.dies();
        assert_eq!(scene.protocol.client_id(), "x");
        // Clean Start 0: the session goes on.
        scene.connect();
        assert_eq!(scene.wire[9], 0);
        scene.wire.clear();
    });
}

#[test]
fn the_time_in_which_the_process_was_down_counts_for_the_expiry() {
    // [MQTT-3.3.2-6], as far as it goes for a sender.
    let message = || Message::new("t", "a").expiry(Duration::from_secs(100));
    play_slowly(&v5(), |scene| {
        scene.cut();
        scene.publish_message(message(), Wait::None);
        scene.commits();
        scene.dies_for(Duration::from_secs(40));
        scene.finds_session();
        scene.commits();
        scene.sends(&[b"\x32\x0C\0\x01t\0\x01\x05\x02\0\0\0\x3Ca"]);
    });
    play_slowly(&v5(), |scene| {
        scene.cut();
        scene.publish_message(message(), Wait::None);
        scene.commits();
        scene.dies_for(Duration::from_secs(101));
        scene.turn();
        let ended = scene.effect();
        assert!(ended.contains("expired"), "{ended:?}");
        scene.commits();
        scene.is_forgotten();
    });
    // A clock that was set back does not make a message live longer.
    play_slowly(&v5(), |scene| {
        scene.cut();
        scene.publish_message(message(), Wait::None);
        scene.commits();
        let disk = scene.disk.take().expect("a script with a disk");
        *scene = Scene::new(v5(), scene.feed);
        scene.boot_at(disk, DATE - Duration::from_secs(1000));
        scene.finds_session();
        scene.commits();
        scene.sends(&[b"\x32\x0C\0\x01t\0\x01\x05\x02\0\0\0\x64a"]);
    });
}

#[test]
fn a_message_whose_end_is_not_on_disk_may_be_sent_by_the_next_process() {
    // That is what `Sent::No` and the README except. A clock without a battery knows of no time that passed.
    let drops = Config {
        when_full: coracle::WhenFull::DropOldest,
        queue_bytes: 67,
        ..v5()
    };
    for (config, end) in [(v5(), 101), (drops, 0)] {
        play_slowly(&config, |scene| {
            scene.cut();
            let message = Message::new("t", "a").expiry(Duration::from_secs(100));
            let ended = scene.publish_message(message, Wait::Ack);
            scene.commits();
            scene.wait(end);
            if end == 0 {
                scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
                scene.publish(Qos::AtLeastOnce, b"c", Wait::None);
            }
            assert_eq!(scene.fails(ended).sent(), Sent::No);
            scene.dies();
            scene.finds_session();
            scene.commits();
            scene.sends(&[b"\x32\x0C\0\x01t\0\x01\x05\x02\0\0\0\x64a"]);
        });
    }
}

#[test]
fn a_clock_that_is_set_leaves_each_message_its_identifier_on_disk() {
    let day = Duration::from_secs(86_400);
    let message = |payload: &[u8]| {
        let message = Message::new("t", payload).qos(Qos::ExactlyOnce);
        message.expiry(Duration::from_secs(100))
    };
    let narrow = Config { window: 1, ..v5() };
    play_slowly(&narrow, |scene| {
        scene.cut();
        // The first gets its identifier later, in a record of its own; the second never does.
        scene.publish_message(message(b"a"), Wait::None);
        scene.publish_message(message(b"b"), Wait::None);
        scene.commits();
        scene.commits();
        scene.finds_session();
        scene.commits();
        scene.sends(&[b"\x34\x0C\0\x01t\0\x01\x05\x02\0\0\0\x64a"]);
        scene.protocol.set_date(scene.now, DATE + day);
        scene.turn();
        scene.commits();
        scene.dies_for(day + Duration::from_secs(40));
        scene.finds_session();
        scene.sends(&[b"\x3C\x0C\0\x01t\0\x01\x05\x02\0\0\0\x3Ca"]);
        scene.receive(PUBREC);
        scene.commits();
        scene.sends(&[PUBREL]);
        scene.receive(PUBCOMP);
        scene.commits();
        scene.sends(&[b"\x34\x0C\0\x01t\0\x02\x05\x02\0\0\0\x3Cb"]);
    });
}

#[test]
fn a_clock_that_is_slewed_or_jumps_and_jumps_writes_little() {
    play_slowly(&v5(), |scene| {
        scene.cut();
        let message = Message::new("t", vec![0; 100_000]).expiry(Duration::from_secs(10_000));
        scene.publish_message(message.clone(), Wait::None);
        scene.publish_message(message, Wait::None);
        scene.commits();
        scene.commits();
        for step in 1..=900_u32 {
            let date = DATE + Duration::from_millis(1) * step;
            scene.protocol.set_date(scene.now, date);
        }
        scene.turn();
        assert!(!scene.commit(), "less than a second is not worth it");
        for step in 0..100_u32 {
            let date = DATE + Duration::from_secs(1_000) * (step % 2);
            scene.protocol.set_date(scene.now, date);
        }
        scene.turn();
        let disk = scene.disk.as_ref().expect("a script with a disk");
        let bytes = disk.under_way.as_ref().map_or(0, Batch::bytes);
        assert!(bytes < 1_400_000, "{bytes} bytes in one batch");
        // What was not written then is written once there is room.
        scene.commits();
        scene
            .protocol
            .set_date(scene.now, DATE + Duration::from_secs(9_000));
        scene.turn();
        scene.commits();
        scene.dies_for(Duration::from_secs(9_000 + 5_000));
        scene.turn();
        assert_eq!(scene.protocol.unfinished(), 2);
    });
}

#[test]
fn when_the_store_fails_every_wait_says_whether_its_message_may_be_sent() {
    let full = StoreError::new(StoreErrorKind::Full, "writing /x: no space left");
    play_slowly(&v3(), |scene| {
        let sent = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.commits();
        scene.sends(&[PUBLISH_1]);
        let handed_over = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        let gathered = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
        let zero = scene.publish(Qos::AtMostOnce, b"z", Wait::Ack);
        scene.protocol.handle_store_failed(&full);
        scene.collect();
        let text = "publish: writing /x: no space left";
        scene.fails_with(sent, Sent::Maybe, &format!("{text} (perhaps sent)"));
        scene.fails_with(handed_over, Sent::Maybe, &format!("{text} (perhaps sent)"));
        scene.fails_with(gathered, Sent::No, &format!("{text} (not sent)"));
        scene.is_sent(zero);
        scene.wire.clear();
    });
}

#[test]
fn a_message_that_is_on_disk_may_be_sent_though_its_identifier_is_not() {
    // With the connection it got one, or lost it with the session; the next process sends it anyway.
    for connacks in [&[CONNACK][..], &[CONNACK, CONNACK]] {
        play_slowly(&v3(), |scene| {
            scene.cut();
            let stored = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
            scene.commits();
            // Holds the disk up.
            let handed_over = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
            for connack in connacks {
                scene.cut();
                scene.open_with(connack);
            }
            let gathered = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
            scene.sends_nothing();
            scene.protocol.close();
            scene.collect();
            let text = "publish: the client is closed";
            scene.fails_with(stored, Sent::Maybe, &format!("{text} (perhaps sent)"));
            scene.fails_with(handed_over, Sent::Maybe, &format!("{text} (perhaps sent)"));
            scene.fails_with(gathered, Sent::No, &format!("{text} (not sent)"));
            scene.dies();
            scene.finds_session();
            scene.commits();
            scene.sends(&[PUBLISH_2]);
        });
    }
}

#[test]
fn who_goes_on_without_a_store_has_what_waited_for_it() {
    play_slowly(&v3(), |scene| {
        let acknowledged = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.sends_nothing();
        scene.protocol.go_on_without_store();
        scene.disk = None;
        scene.turn();
        scene.sends(&[PUBREC, PUBLISH_1]);
        scene.receive(PUBACK);
        scene.is_acknowledged(acknowledged, Reason::SUCCESS);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.sends(&[b"\x32\x06\0\x01t\0\x02b"]);
    });
    // The session lives with this process from now on, and ends with it.
    let config = Config {
        stored: true,
        ..v5()
    };
    play_slowly(&config, |scene| {
        assert!(scene.protocol.config().farewell().list().is_empty());
        scene.protocol.go_on_without_store();
        let farewell = scene.protocol.config().farewell();
        assert_eq!(farewell.list().session_expiry_interval(), Some(0));
        scene.disk = None;
    });
}

#[test]
fn a_damaged_store_is_an_error_and_nothing_of_it_is_taken() {
    play_slowly(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.commits();
        scene.wire.clear();
        let mut disk = scene.disk.take().expect("a script with a disk");
        let last = disk.records.values_mut().last().expect("a message");
        last.truncate(5);
        *scene = Scene::new(v3(), scene.feed);
        let error = scene
            .protocol
            .restore(scene.now, DATE, &disk.read())
            .expect_err("it is cut off");
        assert_eq!(error.kind(), StoreErrorKind::Damaged);
        assert_eq!(
            error.to_string(),
            "the record 0x200000000000000 of the store is cut off"
        );
        assert_eq!(scene.protocol.unfinished(), 0);
    });
}

#[test]
fn a_store_that_names_more_identifiers_than_a_session_may_is_damaged() {
    // Some are left to SUBSCRIBE and UNSUBSCRIBE; without any these would be tried again and again.
    for (count, fits) in [(65_535, false), (65_520, false), (65_519, true)] {
        let mut session = Vec::new();
        let identity = Identity {
            at_broker: true,
            version: Version::V3_1_1,
            client_id: "c".to_owned(),
            assigned: None,
            place: String::new(),
        };
        Entry::Session(identity).write(&mut session);
        let mut disk = Disk {
            records: (1..=count).map(|id| (4 << 56 | id, vec![1])).collect(),
            ..Disk::at_once()
        };
        disk.records.insert(1 << 56, session);
        let mut scene = Scene::new(v3(), Feed::Whole);
        let restored = scene.protocol.restore(scene.now, DATE, &disk.read());
        if let Err(error) = restored {
            assert!(!fits, "{error}");
            assert_eq!(error.kind(), StoreErrorKind::Damaged);
            let text = "the store gives more packet identifiers than a session has";
            assert_eq!(error.to_string(), text);
            continue;
        }
        scene.disk = Some(disk);
        scene.finds_session();
        for _ in 0..10 {
            scene.subscribe(&["t"], Qos::AtMostOnce, Wait::None);
            scene.unsubscribe(&["t"], Wait::None);
        }
        assert!(fits, "{count} were taken");
        // Eight of each may be unanswered.
        assert_eq!(scene.wire.len(), 8 * (8 + 7));
        scene.wire.clear();
    }
}

#[test]
fn a_property_that_belongs_into_another_packet_does_not_damage_the_store() {
    // Before 5.0 properties are not sent, so none is refused.
    play_slowly(&v3(), |scene| {
        let stray = Properties::new().content_type("c").will_delay_interval(1);
        scene.publish_message(Message::new("t", "a").properties(stray), Wait::None);
        scene.commits();
        scene.sends(&[PUBLISH_1]);
        scene.dies();
        scene.finds_session();
        scene.sends(&[AGAIN_1]);
    });
}

#[test]
fn what_waits_for_the_disk_does_not_follow_disconnect() {
    // [MQTT-3.14.4-1]
    play_slowly(&v3(), |scene| {
        scene.receive(PUBLISH_2);
        scene.gets("t", b"a");
        scene.commits();
        scene.sends(&[PUBREC]);
        scene.receive(PUBREL);
        scene.disconnect();
        scene.sends(&[DISCONNECT]);
        scene.commits();
        scene.sends_nothing();
    });
}

#[test]
fn the_oldest_message_is_dropped_from_the_disk_too() {
    let small = Config {
        when_full: coracle::WhenFull::DropOldest,
        queue_bytes: 100,
        ..v3()
    };
    play_slowly(&small, |scene| {
        scene.cut();
        for payload in [b"a", b"b", b"c"] {
            scene.publish(Qos::AtLeastOnce, payload, Wait::None);
        }
        while scene.commit() {
            scene.turn();
        }
        scene.dies();
        scene.finds_session();
        scene.commits();
        scene.sends(&[b"\x32\x06\0\x01t\0\x01b", b"\x32\x06\0\x01t\0\x02c"]);
    });
}

#[test]
fn what_is_dropped_or_expires_behind_a_slow_disk_takes_no_memory() {
    // Else every message of the time in which the disk hung would lie in the next batch.
    let drops = Config {
        when_full: coracle::WhenFull::DropOldest,
        queue_bytes: 100_000,
        ..v5()
    };
    for config in [drops, v5()] {
        play_slowly(&config, |scene| {
            scene.cut();
            scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
            for number in 0..3_000_u32 {
                let mut payload = vec![0; 1_000];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                let message = Message::new("t", payload).expiry(Duration::from_secs(1));
                scene.publish_message(message, Wait::None);
                scene.pass(Duration::from_millis(10)).expect("offline");
            }
            scene.effects.clear();
            let mut largest = 0;
            let mut last = Vec::new();
            while scene.commit() {
                scene.turn();
                let disk = scene.disk.as_ref().expect("a script with a disk");
                let gathered = disk.under_way.as_ref().map_or(0, Batch::bytes);
                largest = largest.max(gathered);
                last.extend(disk.records.values().last().cloned());
            }
            assert!(largest < 1_200_000, "{largest} bytes in one batch");
            // What is still wanted was stored all the same.
            let last = last.last().expect("a record");
            let payload = &last[last.len() - 1_000..];
            assert_eq!(payload[..4], 2_999_u32.to_be_bytes());
        });
    }
}

#[test]
fn what_cannot_leave_behind_a_replay_gets_no_identifier_before_it_can() {
    // Before 5.0 few messages of QoS 2 are under way. What has an identifier is given up if the broker loses
    // the session, as it may have been sent.
    play_slowly(&v3(), |scene| {
        for _ in 0..40 {
            scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        }
        while scene.commit() {
            scene.turn();
        }
        assert_eq!(scene.wire.len(), 20 * PUBLISH_2.len());
        scene.wire.clear();
        scene.reconnect_present();
        while scene.commit() {
            scene.turn();
        }
        assert_eq!(scene.wire.len(), 20 * AGAIN_2.len());
        scene.dies();
        scene.open();
        while scene.commit() {
            scene.turn();
        }
        assert_eq!(scene.wire.len(), 20 * PUBLISH_2.len());
        scene.wire.clear();
        scene.effects.clear();
    });
}
