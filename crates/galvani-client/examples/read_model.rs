//! A read model kept from the change feed: what each customer has ordered, and for how much.
//!
//! Orders are keys `CUSTOMER/ORDER` of bucket `orders`, their values are amounts. The model is a bucket of
//! its own, a row for each customer, and the position in the feed is kept there as well. It may be killed
//! at any moment and started again: `docs/recipes/read-model.md` says why that is enough.
//!
//! ```text
//! read_model 'galvani://127.0.0.1:7070?identity=DIR' run     # until it is stopped
//! read_model 'galvani://127.0.0.1:7070?identity=DIR' show    # CUSTOMER  ORDERS  TOTAL
//! ```

use galvani_client::{
    Bucket, BucketProps, Bytes, Change, Client, Dot, ErrorKind, Event, FeedMode, FeedToken, Quorum,
    Read, Start,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, command] = words.as_slice() else { return Err(USAGE.into()) };
    let db = Client::builder().seed(url).timeout(Duration::from_secs(10)).connect().await?;
    // Nobody follows the model's own writes.
    let props = BucketProps { feed: FeedMode::Off, ..BucketProps::with_copies(3) };
    db.create_bucket(ORDERS, BucketProps::with_copies(3)).await?;
    db.create_bucket(MODEL, props).await?;
    match command.as_str() {
        "run" => run(&db).await,
        "show" => show(&db).await,
        _ => Err(USAGE.into()),
    }
}

/// Follows the orders for ever. It ends with an error if it cannot go on; whoever started it starts it
/// again.
async fn run(db: &Client) -> Result<()> {
    let model = db.bucket(MODEL);
    let mut kept = Position::take_over(&model).await?;
    loop {
        match follow(db, &model, &mut kept).await {
            Err(error) if is_gap(error.as_ref()) => start_anew(db, &model, &mut kept).await?,
            ended => return ended,
        }
    }
}

async fn follow(db: &Client, model: &Bucket, kept: &mut Position) -> Result<()> {
    let start = kept.token.clone().map_or(Start::Beginning, Start::Token);
    let mut feed = db.feed().bucket(ORDERS).from(start).subscribe().await?;
    let mut todo: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    let mut count = 0;
    while let Some(event) = feed.next().await {
        match event? {
            Event::Changed(change) => {
                todo.entry(customer_of(&change)).or_default().push(change);
                count += 1;
                if count < BATCH {
                    continue;
                }
            }
            Event::Checkpoint(_) => {}
            // At a beginning: orders that were deleted before it. The model knows nothing of them.
            _ => continue,
        }
        // First the rows, then the position after them: what is between the two comes again.
        for (customer, changes) in std::mem::take(&mut todo) {
            update_row(model, &customer, &changes, kept).await?;
        }
        kept.keep(model, feed.token()).await?;
        count = 0;
    }
    Err("the client was closed".into())
}

/// Applies changes to the row of a customer.
async fn update_row(
    model: &Bucket,
    customer: &str,
    changes: &[Change],
    kept: &Position,
) -> Result<()> {
    let key = format!("{ROW}{customer}");
    let read = model.get(key.clone()).r(Quorum::Majority).strict().await?;
    let mut row = latest(&read).map(Row::parse).transpose()?.unwrap_or_default();
    kept.check_latest(row.run)?;
    row.run = kept.run;
    for change in changes {
        row.apply(change)?;
    }
    row.past.retain(|dot| !kept.covers(*dot));
    model.put(key, row.to_text()).after(&read).strict().send().await?;
    Ok(())
}

/// What the model knows of one customer.
#[derive(Debug, Default)]
struct Row {
    /// Which run of this program wrote it.
    run: u128,
    orders: Vec<Order>,
    /// Writes that are dealt with, or replaced by one that is, and that may still come (again): those that
    /// the position that is kept does not cover.
    past: BTreeSet<Dot>,
}

/// A value of an order. Writes that race leave several.
#[derive(Debug)]
struct Order {
    key: String,
    amount: u64,
    /// The write; two if it was retried and so has two names.
    dots: Vec<Dot>,
}

impl Row {
    /// Applies an event once, however often it comes, and whenever: also after one that replaced it.
    fn apply(&mut self, change: &Change) -> Result<()> {
        for dot in &change.supersedes {
            self.orders.retain(|order| !order.dots.contains(dot));
            self.past.insert(*dot);
        }
        let dot = change.source.dot;
        if !self.past.insert(dot) {
            return Ok(());
        }
        if let Some(first) = change.source.dup_of {
            // Another name of a write that is here, or was.
            let known = self.orders.iter_mut().find(|order| order.dots.contains(&first));
            known.into_iter().for_each(|order| order.dots.push(dot));
            return Ok(());
        }
        if let Some(value) = &change.value {
            let (key, amount) = (text(&change.source.key)?, text(value)?.parse()?);
            self.orders.push(Order { key: key.to_owned(), amount, dots: vec![dot] });
        }
        Ok(())
    }

    /// How many orders, and for how much: where an order has several values, the largest counts.
    fn total(&self) -> (usize, u64) {
        let mut amounts: BTreeMap<&str, u64> = BTreeMap::new();
        for order in &self.orders {
            let amount = amounts.entry(&order.key).or_default();
            *amount = order.amount.max(*amount);
        }
        (amounts.len(), amounts.values().sum())
    }

    /// `run N`, then a line for each order and for each write that is past.
    fn to_text(&self) -> String {
        let mut text = format!("run {}\n", self.run);
        let dots = |dots: &[Dot]| dots.iter().map(dot_text).collect::<Vec<_>>().join(",");
        for Order { key, amount, dots: of } in &self.orders {
            // Writing to a string does not fail.
            let _ = writeln!(text, "order {amount} {} {key}", dots(of));
        }
        for dot in &self.past {
            let _ = writeln!(text, "past {}", dot_text(dot));
        }
        text
    }

    fn parse(bytes: &Bytes) -> Result<Row> {
        let mut row = Row { run: run_of(bytes), ..Row::default() };
        for line in text(bytes)?.lines().skip(1) {
            if let Some(dot) = line.strip_prefix("past ") {
                row.past.insert(parse_dot(dot)?);
                continue;
            }
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let ["order", amount, dots, key] = words[..] else {
                return Err(format!("not a line of a row: {line}").into());
            };
            let dots = dots.split(',').map(parse_dot).collect::<Result<_>>()?;
            row.orders.push(Order { key: key.to_owned(), amount: amount.parse()?, dots });
        }
        Ok(row)
    }
}

/// How far the model is, and which run keeps it.
struct Position {
    /// Greater than that of any run before.
    run: u128,
    /// `None`: at the beginning.
    token: Option<FeedToken>,
}

impl Position {
    /// Goes on where the last run was. From here on that run is stopped, if it still is there.
    async fn take_over(model: &Bucket) -> Result<Position> {
        let read = model.get(POSITION).r(Quorum::Majority).strict().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let mut position = Position { run: now, token: None };
        if let Some(bytes) = latest(&read) {
            position.run = now.max(run_of(bytes) + 1);
            let start =
                bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            if start < bytes.len() {
                position.token = Some(FeedToken::from_bytes(&bytes[start..])?);
            }
        }
        model.put(POSITION, position.to_bytes()).after(&read).strict().send().await?;
        Ok(position)
    }

    /// Everything before `token` is in the model.
    async fn keep(&mut self, model: &Bucket, token: &FeedToken) -> Result<()> {
        self.put(model, Some(token.clone())).await
    }

    async fn put(&mut self, model: &Bucket, token: Option<FeedToken>) -> Result<()> {
        let read = model.get(POSITION).r(Quorum::Majority).strict().await?;
        self.check_latest(latest(&read).map_or(0, run_of))?;
        self.token = token;
        model.put(POSITION, self.to_bytes()).after(&read).strict().send().await?;
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("run {}\n", self.run).into_bytes();
        bytes.extend(self.token.iter().flat_map(FeedToken::to_bytes));
        bytes
    }

    /// Whether an event can come again: not if the position that is kept is behind it.
    fn covers(&self, dot: Dot) -> bool {
        let cursors = self.token.iter().flat_map(|token| token.cursors.values());
        cursors.into_iter().any(|cursor| cursor.delivered().contains(dot))
    }

    fn check_latest(&self, run: u128) -> Result<()> {
        match run <= self.run {
            true => Ok(()),
            false => Err("a later run has taken over".into()),
        }
    }
}

/// Of values side by side, that of the latest run. A write of a run that was killed may arrive after the
/// next has begun; but the next has had every event that the former kept no position after.
fn latest(read: &Read) -> Option<&Bytes> {
    read.values().max_by_key(|bytes| run_of(bytes))
}

/// The number in the first line, `run N`.
fn run_of(bytes: &Bytes) -> u128 {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let number = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("run "));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Empties the model and begins again: writes are gone that it has not seen, deletions perhaps.
async fn start_anew(db: &Client, model: &Bucket, kept: &mut Position) -> Result<()> {
    let empty = Row { run: kept.run, ..Row::default() }.to_text();
    for key in rows(db).await? {
        let read = model.get(key.clone()).r(Quorum::Majority).strict().await?;
        kept.check_latest(latest(&read).map_or(0, run_of))?;
        model.put(key, empty.clone()).after(&read).strict().send().await?;
    }
    // Last: if it is killed before, the gap is met again.
    kept.put(model, None).await
}

fn is_gap(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<galvani_client::Error>();
    error.is_some_and(|error| matches!(error.kind(), ErrorKind::FeedGap { .. }))
}

/// What the model says.
async fn show(db: &Client) -> Result<()> {
    for key in rows(db).await? {
        let read = db.bucket(MODEL).get(key.clone()).await?;
        let row = latest(&read).map(Row::parse).transpose()?.unwrap_or_default();
        let (orders, total) = row.total();
        if orders > 0 {
            println!("{}\t{orders}\t{total}", text(&key)?.trim_start_matches(ROW));
        }
    }
    Ok(())
}

/// Keys of all rows, sorted.
async fn rows(db: &Client) -> Result<BTreeSet<Bytes>> {
    let mut list = db.bucket(MODEL).list(ROW);
    let mut keys = BTreeSet::new();
    while let Some(page) = list.next_page().await? {
        keys.extend(page.keys.into_iter().map(|listed| listed.key));
    }
    Ok(keys)
}

/// The part of an order's key before the first `/`.
fn customer_of(change: &Change) -> String {
    let key = String::from_utf8_lossy(&change.source.key);
    key.split('/').next().unwrap_or_default().to_owned()
}

fn text(bytes: &Bytes) -> Result<&str> {
    Ok(std::str::from_utf8(bytes)?)
}

fn dot_text(dot: &Dot) -> String {
    format!("{}.{}", dot.origin, dot.counter)
}

fn parse_dot(text: &str) -> Result<Dot> {
    let (origin, counter) = text.split_once('.').ok_or("a write's name has two parts")?;
    Ok(Dot { origin: origin.parse()?, counter: counter.parse()? })
}

const ORDERS: &str = "orders";
const MODEL: &str = "orders-by-customer";
const POSITION: &str = "position";
const ROW: &str = "customer/";
/// Events after which the position is kept, if no second is over before.
const BATCH: usize = 256;
const USAGE: &str = "usage: read_model URL run|show";
