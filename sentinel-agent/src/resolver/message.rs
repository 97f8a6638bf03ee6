//! Queries as they come from sessions, and the replies to them.
//!
//! Invariant: any bytes are read without a panic; what is no query gets at most a header, which is never longer than what came; and a
//! reply carries the question in the asker's own spelling.

use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS, SVCB};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use sentinel_proto::HostName;

use super::{Answer, Kind};

/// The longest query that is read: a name, and what EDNS puts beside it.
pub(super) const LONGEST_QUERY: usize = 1232;
/// The longest reply over UDP, whatever the asker could take: what no link breaks into fragments.
const LONGEST_DATAGRAM: u16 = 1232;
/// What an asker takes that doesn't say.
const PLAIN_DATAGRAM: u16 = 512;
const HEADER: usize = 12;
/// The most records beside the question that a query has: EDNS, and a signature.
const MOST_ADDITIONAL: u16 = 4;
/// How much is shown of a name that is none.
const MOST_SHOWN: usize = 100;

/// A query that can be answered.
#[derive(Clone, Debug)]
pub(super) struct Query {
    metadata: Metadata,
    asked: Asked,
    /// What the asker can take in a datagram, if it speaks EDNS.
    payload: Option<u16>,
}

/// What came in place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Nothing that wants an answer.
    Silence,
    /// What this answers.
    Reply(Vec<u8>),
}

/// What a query is answered with.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// No record, and why.
    Code(ResponseCode),
    /// Addresses of the kind that was asked for.
    Addresses(Vec<Answer>),
    /// How to reach a service.
    Bindings(Vec<(SVCB, u32)>),
}

/// For how many bytes a reply has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// What the asker takes in a datagram.
    Datagram,
    /// What a length prefix can say.
    Stream,
}

impl Query {
    /// Reads one query, and nothing but one.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Err(Unreadable::Silence) };
        let [id_high, id_low, flags, _, counts @ ..] = *header;
        let is_response = flags & 0x80 != 0;
        if is_response {
            return Err(Unreadable::Silence);
        }
        let wrong = |code| Err(Unreadable::Reply(bare(u16::from_be_bytes([id_high, id_low]), flags, code)));
        let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
        if op_code != OpCode::Query {
            return wrong(ResponseCode::NotImp);
        }
        let [q_high, q_low, an_high, an_low, ns_high, ns_low, ar_high, ar_low] = counts;
        let questions = u16::from_be_bytes([q_high, q_low]);
        let records = [an_high, an_low, ns_high, ns_low];
        let additional = u16::from_be_bytes([ar_high, ar_low]);
        if questions != 1 || records != [0; 4] || additional > MOST_ADDITIONAL || bytes.len() > LONGEST_QUERY
        {
            return wrong(ResponseCode::FormErr);
        }
        let Ok(mut message) = Message::from_vec(bytes) else { return wrong(ResponseCode::FormErr) };
        let Some(asked) = message.queries.pop() else { return wrong(ResponseCode::FormErr) };
        let query =
            Self { metadata: message.metadata, asked, payload: message.edns.as_ref().map(Edns::max_payload) };
        if message.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Err(Unreadable::Reply(query.reply(&Body::Code(ResponseCode::BADVERS), Room::Datagram)));
        }
        if query.asked.query_class() != DNSClass::IN {
            return Err(Unreadable::Reply(query.reply(&Body::Code(ResponseCode::Refused), Room::Datagram)));
        }
        Ok(query)
    }

    /// The name that is asked for.
    ///
    /// # Errors
    /// It is no host name: as it can be shown.
    pub(super) fn name(&self) -> Result<HostName, String> {
        let name = self.asked.name();
        let shown = || name.to_ascii().escape_debug().take(MOST_SHOWN).collect::<String>();
        let mut text = String::new();
        for label in name.iter() {
            // A label may hold a dot: `a.b` in front of `example` is not `a` in front of `b.example`.
            let label = std::str::from_utf8(label).ok().filter(|label| !label.contains('.'));
            let Some(label) = label else { return Err(shown()) };
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(label);
        }
        HostName::parse(&text).map_err(|_refused| shown())
    }

    pub(super) fn kind(&self) -> Kind {
        match self.asked.query_type() {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            RecordType::HTTPS => Kind::Https,
            RecordType::SVCB => Kind::Svcb,
            other => Kind::Other(other.into()),
        }
    }

    /// The bytes of the reply. One that is too long says so and has no records: the asker comes again over TCP.
    pub(super) fn reply(&self, body: &Body, room: Room) -> Vec<u8> {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.add_query(self.asked.clone());
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LONGEST_DATAGRAM);
            message.set_edns(edns);
        }
        match body {
            Body::Code(code) => message.metadata.response_code = *code,
            Body::Addresses(answers) => {
                message
                    .add_answers(answers.iter().map(|answer| self.record(answer.seconds, address(answer))));
            }
            Body::Bindings(bindings) => {
                message.add_answers(bindings.iter().map(|(binding, seconds)| {
                    let data = match self.kind() {
                        Kind::Https => RData::HTTPS(HTTPS(binding.clone())),
                        Kind::A | Kind::Aaaa | Kind::Svcb | Kind::Other(_) => RData::SVCB(binding.clone()),
                    };
                    self.record(*seconds, data)
                }));
            }
        }
        let most = match room {
            Room::Datagram => {
                usize::from(self.payload.unwrap_or_default().clamp(PLAIN_DATAGRAM, LONGEST_DATAGRAM))
            }
            Room::Stream => usize::from(u16::MAX),
        };
        let fits = |bytes: &Vec<u8>| bytes.len() <= most;
        message
            .to_vec()
            .ok()
            .filter(fits)
            .or_else(|| message.truncate().to_vec().ok().filter(fits))
            .unwrap_or_else(|| {
                let recursion_desired = u8::from(self.metadata.recursion_desired);
                bare(self.metadata.id, recursion_desired, ResponseCode::ServFail)
            })
    }

    fn record(&self, seconds: u32, data: RData) -> Record {
        Record::from_rdata(self.asked.name().clone(), seconds, data)
    }
}

fn address(answer: &Answer) -> RData {
    match answer.address {
        std::net::IpAddr::V4(v4) => RData::A(A(v4)),
        std::net::IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// A reply that is a header and nothing more. Of the query's flags it keeps the operation and whether recursion was desired.
fn bare(id: u16, flags: u8, code: ResponseCode) -> Vec<u8> {
    const RESPONSE: u8 = 0x80;
    const KEPT: u8 = 0x79;
    const RECURSION_AVAILABLE: u8 = 0x80;
    let [id_high, id_low] = id.to_be_bytes();
    let mut bytes = vec![id_high, id_low, RESPONSE | flags & KEPT, RECURSION_AVAILABLE | code.low()];
    bytes.resize(HEADER, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::MessageType;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn message(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn bytes(message: &Message) -> Vec<u8> {
        message.to_vec().unwrap()
    }

    fn with_edns(name: &str, payload: u16) -> Vec<u8> {
        let mut message = message(name, RecordType::A);
        message.set_edns(Edns::new().set_max_payload(payload).clone());
        bytes(&message)
    }

    fn read(bytes: &[u8]) -> Query {
        Query::read(bytes).unwrap()
    }

    fn answers(count: u8) -> Body {
        let answer = |last| Answer { address: [192, 0, 2, last].into(), seconds: 60 };
        Body::Addresses((1..=count).map(answer).collect())
    }

    fn parsed(reply: &[u8]) -> Message {
        Message::from_vec(reply).unwrap()
    }

    /// The code of what came back without being asked further.
    fn refused(bytes: &[u8]) -> Option<ResponseCode> {
        match Query::read(bytes).unwrap_err() {
            Unreadable::Silence => None,
            Unreadable::Reply(reply) => {
                assert!(reply.len() <= bytes.len(), "longer than what came");
                Some(parsed(&reply).metadata.response_code)
            }
        }
    }

    #[test]
    fn a_query_is_read_and_its_reply_echoes_the_askers_spelling() {
        let query = read(&bytes(&message("aPi.EXAMPLE.", RecordType::A)));
        assert_eq!(query.name().unwrap().as_str(), "api.example");
        assert_eq!(query.kind(), Kind::A);
        let reply = parsed(&query.reply(&answers(2), Room::Datagram));
        assert_eq!((reply.metadata.id, reply.metadata.message_type), (4711, MessageType::Response));
        assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
        assert_eq!(reply.queries[0].name().to_ascii(), "aPi.EXAMPLE.");
        assert_eq!(reply.answers.len(), 2);
        assert!(
            reply.answers.iter().all(|record| record.name.to_ascii() == "aPi.EXAMPLE." && record.ttl == 60)
        );
    }

    #[test]
    fn a_kind_is_what_it_is_and_any_other_keeps_its_number() {
        for (asked, kind) in [
            (RecordType::AAAA, Kind::Aaaa),
            (RecordType::HTTPS, Kind::Https),
            (RecordType::SVCB, Kind::Svcb),
            (RecordType::TXT, Kind::Other(16)),
            (RecordType::PTR, Kind::Other(12)),
            (RecordType::ANY, Kind::Other(255)),
        ] {
            assert_eq!(read(&bytes(&message("a.example.", asked))).kind(), kind);
        }
    }

    #[test]
    fn a_response_and_what_has_no_header_get_no_reply() {
        let mut response = message("a.example.", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        assert_eq!(refused(&bytes(&response)), None);
        for length in 0..12 {
            assert_eq!(refused(&vec![0; length]), None);
        }
    }

    #[test]
    fn what_is_no_query_gets_a_header_with_the_reason() {
        let mut two = message("a.example.", RecordType::A);
        two.add_query(two.queries[0].clone());
        assert_eq!(refused(&bytes(&two)), Some(ResponseCode::FormErr));
        let mut none = message("a.example.", RecordType::A);
        none.queries.clear();
        assert_eq!(refused(&bytes(&none)), Some(ResponseCode::FormErr));
        let mut record = message("a.example.", RecordType::A);
        record.add_answer(Record::from_rdata(Name::root(), 1, RData::A(A::new(192, 0, 2, 1))));
        assert_eq!(refused(&bytes(&record)), Some(ResponseCode::FormErr));
        let mut update = message("a.example.", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(refused(&bytes(&update)), Some(ResponseCode::NotImp));
        let mut cut = bytes(&message("a.example.", RecordType::A));
        cut.pop();
        assert_eq!(refused(&cut), Some(ResponseCode::FormErr));
        let mut long = bytes(&message("a.example.", RecordType::A));
        long.resize(1233, 0);
        assert_eq!(refused(&long), Some(ResponseCode::FormErr));
        long.truncate(1232);
        assert!(Query::read(&long).is_ok());
    }

    #[test]
    fn another_class_and_another_version_of_edns_are_refused() {
        let mut chaos = message("version.bind.", RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(refused(&bytes(&chaos)), Some(ResponseCode::Refused));
        let mut newer = message("a.example.", RecordType::A);
        newer.set_edns(Edns::new().set_version(1).clone());
        // It shares its number with BADSIG.
        assert_eq!(refused(&bytes(&newer)).map(u16::from), Some(ResponseCode::BADVERS.into()));
    }

    #[test]
    fn a_name_that_is_no_host_name_is_shown_and_never_taken_for_another() {
        let labels = |labels: &[&[u8]]| {
            let mut query = message("x.", RecordType::A);
            query.queries[0].set_name(Name::from_labels(labels.iter().copied()).unwrap());
            read(&bytes(&query)).name()
        };
        assert!(labels(&[b"api", b"example"]).is_ok());
        assert!(labels(&[b"api.example", b"com"]).is_err());
        let told = labels(&[b"a\n\x1b[31m\xff", b"example"]).unwrap_err();
        assert!(told.chars().all(|c| c.is_ascii_graphic()) && told.contains("example"), "{told}");
        assert!(labels(&[]).is_err());
        assert!(labels(&[&[0xe2; 60], &[0xe2; 60], &[0xe2; 60]]).unwrap_err().len() <= 100);
    }

    #[test]
    fn a_reply_that_is_too_long_for_the_asker_says_so_and_has_no_records() {
        for (query, fit, too_many) in [
            (bytes(&message("a.example.", RecordType::A)), 30, 31),
            (with_edns("a.example.", 0), 29, 30),
            (with_edns("a.example.", 1000), 60, 61),
            (with_edns("a.example.", 65535), 74, 75),
        ] {
            let whole = parsed(&read(&query).reply(&answers(fit), Room::Datagram));
            assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, usize::from(fit)));
            let cut = parsed(&read(&query).reply(&answers(too_many), Room::Datagram));
            assert_eq!((cut.metadata.truncation, cut.answers.len()), (true, 0));
            let whole = parsed(&read(&query).reply(&answers(too_many), Room::Stream));
            assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, usize::from(too_many)));
        }
    }

    #[test]
    fn edns_is_answered_with_edns_and_nothing_with_nothing() {
        let reply = parsed(&read(&with_edns("a.example.", 4096)).reply(&answers(1), Room::Datagram));
        assert_eq!(reply.edns.unwrap().max_payload(), 1232);
        let plain = read(&bytes(&message("a.example.", RecordType::A)));
        assert!(parsed(&plain.reply(&answers(1), Room::Datagram)).edns.is_none());
    }

    fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
        match Query::read(bytes) {
            Err(Unreadable::Silence) => {}
            Err(Unreadable::Reply(reply)) => {
                prop_assert!(reply.len() >= 12 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0);
            }
            Ok(query) => {
                let _ = (query.kind(), query.name());
                for body in [
                    answers(0),
                    answers(64),
                    Body::Code(ResponseCode::NXDomain),
                    Body::Code(ResponseCode::BADVERS),
                ] {
                    let reply = query.reply(&body, Room::Datagram);
                    prop_assert!(reply.len() <= 1232 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0);
                    prop_assert!(Message::from_vec(&reply).is_ok());
                    prop_assert!(Message::from_vec(&query.reply(&body, Room::Stream)).is_ok());
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            check(&bytes)?;
        }

        #[test]
        fn any_bytes_behind_the_header_of_a_query_are_too(
            flags: u8,
            additional in 0_u8..3,
            rest in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut bytes = vec![1, 2, flags & 0x07, 0, 0, 1, 0, 0, 0, 0, 0, additional];
            bytes.extend(rest);
            check(&bytes)?;
        }

        #[test]
        fn a_query_with_bytes_changed_put_in_and_cut_off_is_too(
            labels in proptest::collection::vec("[a-zA-Z0-9_]{1,20}", 1..5),
            payload: u16,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            is_cut: bool,
        ) {
            let mut bytes = with_edns(&format!("{}.", labels.join(".")), payload);
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            check(&bytes)?;
        }
    }
}
