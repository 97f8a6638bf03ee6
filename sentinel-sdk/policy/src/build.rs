//! Builds the tree from the YAML parser's events.
//!
//! Invariant: nothing that could make two readers see two policies gets in: no alias, anchor, tag, second document,
//! doubled key, or value over several lines. Depth and size are capped while reading, not after.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;
use crate::tree::{Entry, Node, Scalar, Value, path_to_item, path_to_key};
use crate::{MAX_DEPTH, MAX_NODES, syntax};

/// The document's tree; where reading had to stop, the part of it that was complete.
pub(crate) fn tree(text: &str, found: &mut Findings) -> Option<Node> {
    let mut builder = Builder { open: Vec::new(), root: None, node_count: 0, found };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => match builder.take(event, span) {
                Flow::Continue => {}
                Flow::Stop => return builder.completed_part(),
            },
            Err(error) => {
                let open = builder.open.iter().rev().find_map(Open::flow_start);
                syntax::report(&error, text, open, builder.found);
                return builder.completed_part();
            }
        }
    }
    if builder.root.is_none() {
        let complaint = Complaint::new(
            "the file holds no policy",
            "write the rules, such as `budgets: {session: 5.0}`; `{}` is the policy without any",
        );
        builder.found.problem(Place::START, "", complaint);
    }
    builder.root
}

enum Flow {
    Continue,
    Stop,
}

/// A list or mapping whose end has not come yet.
struct Open {
    place: Place,
    /// Written with `[` or `{`, not by indentation.
    bracket: Option<char>,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, first_lines: HashMap<String, u32>, key: Pending },
}

/// The key whose value comes next.
enum Pending {
    None,
    Key(Scalar, Place),
    /// One that is reported: its value goes with it.
    Reported,
}

impl Open {
    fn flow_start(&self) -> Option<(Place, char)> {
        self.bracket.map(|bracket| (self.place, bracket))
    }
}

struct Builder<'f> {
    open: Vec<Open>,
    root: Option<Node>,
    node_count: usize,
    found: &'f mut Findings,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Flow {
        let place = place_of(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Flow::Continue,
            Event::DocumentStart(_) => self.document_start(place),
            Event::Alias(_) => {
                self.complain(place, syntax::alias());
                self.scalar_or_reported(None, place)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let mut sound = self.check_properties(place, anchor, tag.is_some());
                if span.end.line() > span.start.line() || is_block(style) {
                    self.complain(place, syntax::several_lines(&text));
                    sound = false;
                }
                let quoted = style != ScalarStyle::Plain;
                self.scalar_or_reported(sound.then(|| Scalar { text: text.into_owned(), quoted }), place)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_properties(place, anchor, tag.is_some());
                self.open(place, (!span.is_empty()).then_some('['), Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_properties(place, anchor, tag.is_some());
                let content =
                    Content::Map { entries: Vec::new(), first_lines: HashMap::new(), key: Pending::None };
                self.open(place, (!span.is_empty()).then_some('{'), content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn document_start(&mut self, place: Place) -> Flow {
        if self.root.is_none() {
            return Flow::Continue;
        }
        let complaint = Complaint::new(
            "a second document begins here",
            "a file holds one policy: remove the line `---`, or write the second one to a file of its own",
        );
        self.complain(place, complaint);
        Flow::Stop
    }

    /// Whether a value carries neither anchor nor tag.
    fn check_properties(&mut self, place: Place, anchor: usize, tagged: bool) -> bool {
        if anchor != 0 {
            self.complain(place, syntax::anchor());
        }
        if tagged {
            self.complain(place, syntax::tag());
        }
        anchor == 0 && !tagged
    }

    fn open(&mut self, place: Place, bracket: Option<char>, content: Content) -> Flow {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep");
            self.complain(place, Complaint::new(message, "no key of a policy needs more than a few levels"));
            return Flow::Stop;
        }
        self.open.push(Open { place, bracket, content });
        self.count(place)
    }

    fn close(&mut self) -> Flow {
        let Some(Open { place, content, .. }) = self.open.pop() else { return Flow::Stop };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        if self.is_at_key() {
            let complaint = Complaint::new("a list or mapping stands as a key", "a key is a plain text");
            self.complain(place, complaint);
            self.set_key(Pending::Reported);
        } else {
            self.add(Node { place, value });
        }
        Flow::Continue
    }

    fn scalar_or_reported(&mut self, scalar: Option<Scalar>, place: Place) -> Flow {
        if self.is_at_key() {
            self.set_key(scalar.map_or(Pending::Reported, |scalar| Pending::Key(scalar, place)));
        } else {
            self.add(Node { place, value: scalar.map_or(Value::Reported, Value::Scalar) });
        }
        self.count(place)
    }

    fn is_at_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: Pending::None, .. }, .. }))
    }

    fn set_key(&mut self, pending: Pending) {
        if let Some(Open { content: Content::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = pending;
        }
    }

    /// Puts a complete value where it belongs.
    fn add(&mut self, value: Node) {
        let Some(Open { content, .. }) = self.open.last_mut() else {
            self.root = Some(value);
            return;
        };
        match content {
            Content::List(items) => items.push(value),
            Content::Map { entries, first_lines, key } => {
                let Pending::Key(key, key_place) = std::mem::replace(key, Pending::None) else { return };
                if let Some(first_line) = first_lines.get(&key.text) {
                    let message = format!("{} stands here a second time", Quoted(&key.text));
                    let way_out = format!("it is already on line {first_line}: merge the two, or remove one");
                    let parent = self.path_of_open();
                    self.found.problem(
                        key_place,
                        &path_to_key(&parent, &key.text),
                        Complaint::new(message, way_out),
                    );
                } else {
                    first_lines.insert(key.text.clone(), key_place.line);
                    entries.push(Entry { key, key_place, value });
                }
            }
        }
    }

    fn count(&mut self, place: Place) -> Flow {
        self.node_count = self.node_count.saturating_add(1);
        if self.node_count <= MAX_NODES {
            return Flow::Continue;
        }
        let message = format!("the file has more than {MAX_NODES} values");
        self.complain(place, Complaint::new(message, "check that this is the file that you meant"));
        Flow::Stop
    }

    fn complain(&mut self, place: Place, complaint: Complaint) {
        let path = self.path_of_open();
        self.found.problem(place, &path, complaint);
    }

    /// The path of what is being read, as far as its keys are known.
    fn path_of_open(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.content {
            Content::List(items) => path_to_item(&path, items.len()),
            Content::Map { key: Pending::Key(key, _), .. } => path_to_key(&path, &key.text),
            Content::Map { .. } => path,
        })
    }

    /// The outermost mapping's complete entries: what they say stands, whatever comes behind them.
    fn completed_part(self) -> Option<Node> {
        if self.root.is_some() {
            return self.root;
        }
        let Open { place, content, .. } = self.open.into_iter().next()?;
        match content {
            Content::Map { entries, .. } => Some(Node { place, value: Value::Map(entries) }),
            Content::List(_) => None,
        }
    }
}

fn is_block(style: ScalarStyle) -> bool {
    matches!(style, ScalarStyle::Literal | ScalarStyle::Folded)
}

fn place_of(span: Span) -> Place {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let width = if span.end.line() > span.start.line() {
        u32::MAX
    } else {
        number(span.end.col().saturating_sub(span.start.col())).max(1)
    };
    let column = number(span.start.col()).saturating_add(1);
    Place { line: number(span.start.line()), column, width }
}
