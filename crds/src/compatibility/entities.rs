//! Entities: their names and paths, what must be unique, their checks, how their events are addressed, what is kept of them.

use super::columns::{counterpart, place_of};
use super::{Audience, BREAKS_ALL, BREAKS_SUBSCRIBERS, BREAKS_WRITERS, Comparison, Place, breaks, inform, warns};
use crate::resolved::{Check, Compared, Entity};

// Both versions of an entity; columns are named as the new one does.
struct Pair<'e> {
    old: &'e Entity,
    new: &'e Entity,
}

impl Pair<'_> {
    // What a column of the old version is called now.
    fn now(&self, column: &str) -> String {
        let was = self.old.by_column(column);
        let is = was.and_then(|was| counterpart(was, &self.old.columns, &self.new.columns));
        is.map_or_else(|| column.to_owned(), |is| is.name.clone())
    }

    fn all_now(&self, columns: &[String]) -> Vec<String> {
        columns.iter().map(|column| self.now(column)).collect()
    }

    fn members(&self, columns: &[String]) -> String {
        let member = |column: &String| {
            let found = self.new.by_column(column).or_else(|| self.old.by_column(column));
            found.map_or_else(|| column.clone(), |found| found.member.clone())
        };
        columns.iter().map(member).collect::<Vec<_>>().join(",")
    }

    // Whether one of these columns was not there before and may be null: those who wrote before don't write it.
    fn is_new_to_writers(&self, columns: &[String]) -> bool {
        columns.iter().any(|name| {
            let was = self.old.columns.iter().any(|was| self.now(&was.name) == *name);
            !was && self.new.by_column(name).is_some_and(|column| !column.required && column.default.is_none())
        })
    }
}

// The sets of columns in which no two objects agree, the natural key aside.
fn unique_sets(entity: &Entity) -> Vec<Vec<String>> {
    let single = entity.columns.iter().filter(|column| column.unique).map(|column| vec![column.name.clone()]);
    let several = entity.indexes.iter().filter(|index| index.unique).map(|index| index.columns.clone());
    single.chain(several).collect()
}

impl Comparison {
    pub(super) fn entity(&mut self, model: &Place, old: &Entity, new: &Entity) {
        let place = model.below("entities").below(&new.name);
        let pair = Pair { old, new };
        self.names(&place, old, new);
        self.columns(&place, &old.columns, &new.columns);
        self.key(&place, &pair);
        self.uniqueness(&place, &pair);
        self.checks(&place, &pair);
        self.addresses(&place.below("events"), &pair);
        self.kept(&place, old, new);
    }

    fn names(&mut self, place: &Place, old: &Entity, new: &Entity) {
        if old.name != new.name {
            self.add(
                place,
                format!(
                    "{} is called {}: in subjects, types of events and transactions; its path is {}, and was {}",
                    old.name, new.name, new.path, old.path
                ),
                &BREAKS_ALL,
                "data stay; let everybody change over at once, or make a new entity beside it and fill both for a while",
            );
        } else if old.path != new.path {
            self.add(
                &place.below("plural"),
                format!("the path is {}, and was {}", new.path, old.path),
                &[breaks(Audience::Readers), breaks(Audience::Writers)],
                "keep the former plural; an API's paths are for ever",
            );
        }
    }

    fn key(&mut self, place: &Place, pair: &Pair<'_>) {
        let (was, is) = (pair.all_now(&pair.old.key), &pair.new.key);
        if was == *is {
            return;
        }
        let change = match (was.is_empty(), is.is_empty()) {
            (true, _) => format!("the natural key is {}, and there was none: a second object with the same is refused", pair.members(is)),
            (_, true) => format!("there is no natural key any more, and it was {}: onConflict goes by the id", pair.members(&was)),
            _ => format!("the natural key is {}, and was {}: by it onConflict finds objects", pair.members(is), pair.members(&was)),
        };
        let advice = "look for those who write with onConflict, and for objects that agree in the new key";
        self.add(&place.below("key"), change, &BREAKS_WRITERS, advice);
    }

    fn uniqueness(&mut self, place: &Place, pair: &Pair<'_>) {
        let was: Vec<Vec<String>> = unique_sets(pair.old).iter().map(|columns| pair.all_now(columns)).collect();
        let is = unique_sets(pair.new);
        let set_place = |columns: &[String]| match columns {
            [one] => pair.new.by_column(one).map_or_else(|| place.clone(), |column| place_of(place, column)),
            several => place.below("indexes").below(&pair.members(several)),
        };
        for columns in is.iter().filter(|columns| !was.contains(columns)) {
            let effects = if pair.is_new_to_writers(columns) { vec![inform(Audience::Writers)] } else { BREAKS_WRITERS.to_vec() };
            self.add(
                &set_place(columns).below("unique"),
                format!("no two objects may agree in {} any more", pair.members(columns)),
                &effects,
                "look for objects that agree, and tell those who write them",
            );
        }
        // Of a column that is gone is told already.
        let there = |columns: &&Vec<String>| columns.iter().all(|column| pair.new.by_column(column).is_some());
        for columns in was.iter().filter(|columns| !is.contains(columns)).filter(there) {
            self.add(
                &set_place(columns).below("unique"),
                format!("objects may agree in {}: a reader who looks for one may find several", pair.members(columns)),
                &[inform(Audience::Readers), inform(Audience::Writers)],
                "look for readers who take the first that they find",
            );
        }
    }

    fn checks(&mut self, place: &Place, pair: &Pair<'_>) {
        let place = place.below("checks");
        let compared_now = |compared: &Compared| match compared {
            Compared::Column(column) => Compared::Column(pair.now(column)),
            Compared::SumOf { column, member } => Compared::SumOf { column: pair.now(column), member: member.clone() },
        };
        let now = |check: &Check| (pair.now(&check.column), check.operator, compared_now(&check.compared));
        for check in &pair.new.checks {
            let place = place.below(&check.declared_name);
            let words = in_words(pair, check);
            let is = (check.column.clone(), check.operator, check.compared.clone());
            match pair.old.checks.iter().find(|was| was.declared_name == check.declared_name).map(now) {
                None => {
                    let is_new = pair.is_new_to_writers(&[check.column.clone(), check.compared.column().clone()]);
                    let effects = if is_new { vec![inform(Audience::Writers)] } else { BREAKS_WRITERS.to_vec() };
                    let advice = "look for objects that don't meet it, and tell those who write them";
                    self.add(&place, format!("it must hold that {words}"), &effects, advice);
                }
                Some(was) if was == is => {}
                Some(was) if (&was.0, &was.2) == (&is.0, &is.2) && is.1.allows_all_of(was.1) => {
                    self.add(&place, format!("it is enough that {words}"), &[inform(Audience::Readers)], "nothing");
                }
                Some(_) => {
                    let advice = "look for objects that don't meet it, and tell those who write them";
                    self.add(&place, format!("it must hold that {words}, which is not what it was"), &BREAKS_WRITERS, advice);
                }
            }
        }
        for check in pair.old.checks.iter().filter(|was| !pair.new.checks.iter().any(|is| is.declared_name == was.declared_name)) {
            let change = format!("it need not hold any more that {}", in_words(pair, check));
            self.add(&place.below(&check.declared_name), change, &[inform(Audience::Readers)], "look for readers who rely on it");
        }
    }

    fn addresses(&mut self, place: &Place, pair: &Pair<'_>) {
        let (old, new) = (pair.old, pair.new);
        let words = |column: &Option<String>, none: &str| {
            column.as_ref().map_or_else(|| none.to_owned(), |column| pair.members(std::slice::from_ref(column)))
        };
        let was = |column: &Option<String>| column.as_ref().map(|column| pair.now(column));
        if was(&old.routing) != new.routing {
            self.add(
                &place.below("routing"),
                format!("subjects have {} as their routing, and had {}", words(&new.routing, "none"), words(&was(&old.routing), "none")),
                &BREAKS_SUBSCRIBERS,
                "change the filters of consumers and `trigger.queue.routing` of MicroServices with it; both subjects are in the stream for a while",
            );
        }
        if was(&old.partition_key) != new.partition_key {
            self.add(
                &place.below("partitionKey"),
                format!(
                    "events of one {} are kept in order, and were of one {}: partitions in subjects are others",
                    words(&new.partition_key, "object"),
                    words(&was(&old.partition_key), "object")
                ),
                &BREAKS_SUBSCRIBERS,
                "let consumers that share out partitions handle what is in the stream before it changes",
            );
        }
    }

    fn kept(&mut self, place: &Place, old: &Entity, new: &Entity) {
        match (old.history, new.history) {
            (true, false) => self.add(
                &place.below("history"),
                "former versions are not kept any more: asOf is refused, and so are the versions of objects",
                &[breaks(Audience::Readers)],
                "keep it while somebody reads asOf or …/history",
            ),
            (false, true) => self.add(
                &place.below("history"),
                "every former version is kept from now on: there are asOf and …/{id}/history",
                &[inform(Audience::Readers)],
                "nothing",
            ),
            _ => {}
        }
        if old.soft_delete != new.soft_delete {
            let (is, was) = if new.soft_delete { (410, 404) } else { (404, 410) };
            self.add(
                &place.below("softDelete"),
                format!("a deleted object is answered with {is} in the place of {was}"),
                &[warns(Audience::Readers)],
                "look for readers who tell the two apart",
            );
        }
    }
}

fn in_words(pair: &Pair<'_>, check: &Check) -> String {
    let member = |column: &String| pair.members(&[pair.now(column)]);
    let compared = match &check.compared {
        Compared::Column(column) => member(column),
        Compared::SumOf { column, member: summed } => format!("the sum of {summed} over {}", member(column)),
    };
    format!("{} {} {compared}", member(&check.column), check.operator.symbol())
}
