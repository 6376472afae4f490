//! A saga on the outbox: an order reserves stock, then charges the customer, and undoes the first where
//! the second is refused.
//!
//! Three services, each a consumer group of its own topic, each with a bucket of its own. What a service
//! does and what it tells the next are one write, by `.emit(..)`: none is ever there without the other.
//! Every service may be killed at any moment and started again, and may run many times:
//! `docs/recipes/order-saga.md` says why that is enough.
//!
//! ```text
//! order_saga URL place 0 100      # orders o0 to o99
//! order_saga URL run              # all three, until it is stopped; or one: run stock|payment|orders
//! order_saga URL show             # ORDER  STATE  STOCK  PAYMENT
//! order_saga URL nudge            # tells again what orders wait for
//! ```

use galvani_client::{
    Bucket, BucketProps, Bytes, Client, Emitted, Event, Quorum, Read, Start, Topic,
};
use std::collections::BTreeSet;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [url, command @ ..] = words.as_slice() else { return Err(USAGE.into()) };
    let db = Client::builder().seed(url).timeout(Duration::from_secs(10)).connect().await?;
    for bucket in [ORDERS, STOCK, PAYMENTS] {
        db.create_bucket(bucket, BucketProps::with_copies(3)).await?;
    }
    match command {
        ["place", from, to] => place(&db, from.parse()?, to.parse()?).await,
        ["run"] => {
            let all = [Service::Orders, Service::Stock, Service::Payment];
            let [orders, stock, payment] = all.map(|service| run(&db, service));
            tokio::try_join!(orders, stock, payment).map(drop)
        }
        ["run", "orders"] => run(&db, Service::Orders).await,
        ["run", "stock"] => run(&db, Service::Stock).await,
        ["run", "payment"] => run(&db, Service::Payment).await,
        ["show"] => show(&db).await,
        ["nudge"] => nudge(&db).await,
        _ => Err(USAGE.into()),
    }
}

/// Places orders. Each fifth is of something that nobody has; each third costs more than anybody has.
async fn place(db: &Client, from: u32, to: u32) -> Result<()> {
    for n in from..to {
        let item = if n % 5 == 0 { "unobtainium" } else { "chair" };
        let amount = if n % 3 == 0 { 5000 } else { 120 };
        let order = Order { state: "placed", item: item.to_owned(), amount };
        let (topic, what) = order.asks();
        let put = db.bucket(ORDERS).put(format!("o{n}"), order.to_text()).blind().strict();
        put.emit(topic, format!("o{n}"), what).send().await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Service {
    Orders,
    Stock,
    Payment,
}

/// Works for ever. It ends with an error if it cannot go on; whoever started it starts it again.
async fn run(db: &Client, service: Service) -> Result<()> {
    let (name, asked) = match service {
        Service::Orders => ("saga-orders", ANSWERS),
        Service::Stock => ("saga-stock", ASK_STOCK),
        Service::Payment => ("saga-payment", ASK_PAYMENT),
    };
    let group = db.group(name).topic(topic(asked)).from(Start::Beginning);
    // An event that fails waits up to 30 s for its next try: twenty are some minutes of trouble.
    let mut member = group.lease(Duration::from_secs(5)).max_deliver(20).join().await?;
    while let Some(delivery) = member.next().await {
        let delivery = delivery?;
        let done = match &delivery.event {
            Event::Emitted(event) => handle(db, service, event).await,
            // Events are gone that nobody has seen: every order that is under way asks again.
            Event::Gap(_) => nudge(db).await,
            _ => Ok(()),
        };
        match done {
            Ok(()) => delivery.ack(),
            Err(error) => delivery.nak_because(error, None),
        }
    }
    Err("the client was closed".into())
}

async fn handle(db: &Client, service: Service, event: &Emitted) -> Result<()> {
    let id = &event.key;
    let said = text(&event.payload)?;
    let (what, about) = said.split_once(' ').unwrap_or((said, ""));
    match service {
        Service::Orders => {
            step(&db.bucket(ORDERS), id, |row| {
                let order = Order::parse(row.ok_or("there is no such order")?)?;
                Ok(order.after(what)?.map(|order| (Some(order.to_text()), order.asks())))
            })
            .await
        }
        Service::Stock => {
            step(&db.bucket(STOCK), id, |row| Ok(Some(stock(row, what, about)?))).await
        }
        Service::Payment => {
            step(&db.bucket(PAYMENTS), id, |row| Ok(Some(payment(row, about)?))).await
        }
    }
}

/// A row that is to be written, if any, and what is told with it.
type Step = (Option<String>, (Topic, String));

/// One step: reads the row, decides, and writes what became of it together with what is told of it. A step
/// that comes again finds its row, and only tells again.
async fn step(
    bucket: &Bucket,
    id: &Bytes,
    decide: impl FnOnce(Option<&str>) -> Result<Option<Step>>,
) -> Result<()> {
    let read = bucket.get(id.clone()).r(Quorum::Majority).strict().await?;
    let Some((row, (topic, what))) = decide(furthest(&read)?)? else { return Ok(()) };
    let write = match row {
        Some(row) => bucket.put(id.clone(), row).after(&read),
        None => bucket.emit(id.clone()),
    };
    write.strict().emit(topic, id.clone(), what).send().await?;
    Ok(())
}

/// An order: how far it is, and what it is of.
struct Order {
    state: &'static str,
    item: String,
    amount: u32,
}

impl Order {
    /// The order after an answer; `None`: the answer has come before.
    fn after(self, answer: &str) -> Result<Option<Order>> {
        let (before, after) = match answer {
            "reserved" => ("placed", "reserved"),
            "sold-out" => ("placed", "cancelled"),
            "charged" => ("reserved", "completed"),
            "refused" => ("reserved", "cancelling"),
            "released" => ("cancelling", "cancelled"),
            _ => return Err(format!("nobody answers {answer}").into()),
        };
        match rank(self.state).cmp(&rank(before)) {
            std::cmp::Ordering::Equal => Ok(Some(Order { state: after, ..self })),
            std::cmp::Ordering::Greater => Ok(None),
            std::cmp::Ordering::Less => Err(format!("{answer}, and it is {}", self.state).into()),
        }
    }

    /// What an order in this state asks of whom.
    fn asks(&self) -> (Topic, String) {
        match self.state {
            "placed" => (topic(ASK_STOCK), format!("reserve {}", self.item)),
            "reserved" => (topic(ASK_PAYMENT), format!("charge {}", self.amount)),
            "cancelling" => (topic(ASK_STOCK), format!("release {}", self.item)),
            end => (topic(DONE), end.to_owned()),
        }
    }

    fn to_text(&self) -> String {
        format!("{} {} {}", self.state, self.item, self.amount)
    }

    fn parse(row: &str) -> Result<Order> {
        let words: Vec<&str> = row.split(' ').collect();
        let [state, item, amount] = words[..] else { return Err("not an order".into()) };
        let state = STATES.iter().find(|known| **known == state).ok_or("not a state")?;
        Ok(Order { state, item: item.to_owned(), amount: amount.parse()? })
    }
}

/// Reserves, or releases. What was released stays so: a request to reserve that comes late does nothing.
fn stock(row: Option<&str>, what: &str, item: &str) -> Result<Step> {
    let row = row.map(|row| row.split(' ').next().unwrap_or_default());
    let (state, answer) = match (what, row) {
        ("reserve", None) if item == "unobtainium" => ("sold-out", "sold-out"),
        ("reserve", None | Some("held")) => ("held", "reserved"),
        ("reserve", Some("sold-out")) => ("sold-out", "sold-out"),
        ("reserve" | "release", _) => ("released", "released"),
        _ => return Err(format!("stock cannot {what}").into()),
    };
    let new = (row != Some(state)).then(|| format!("{state} {item}"));
    Ok((new, (topic(ANSWERS), answer.to_owned())))
}

/// Charges, once for an order. The bank is asked with the order as its idempotency key, so that it decides
/// once as well; here it refuses what is over 1000.
fn payment(row: Option<&str>, amount: &str) -> Result<Step> {
    let state = match row.map(|row| row.split(' ').next().unwrap_or_default()) {
        Some("charged") => "charged",
        Some(_) => "refused",
        None if amount.parse::<u32>()? > 1000 => "refused",
        None => "charged",
    };
    let new = row.is_none().then(|| format!("{state} {amount}"));
    Ok((new, (topic(ANSWERS), state.to_owned())))
}

/// Of rows side by side the one that is furthest. Two members may take the same step at the same time, when
/// a lease ran out; a step that was taken is not taken back.
fn furthest(read: &Read) -> Result<Option<&str>> {
    let rows = read.values().map(text).collect::<Result<Vec<&str>>>()?;
    Ok(rows.into_iter().max_by_key(|row| rank(row.split(' ').next().unwrap_or_default())))
}

fn rank(state: &str) -> usize {
    STATES.iter().position(|known| *known == state).unwrap_or(0)
}

/// Lets every order that is under way ask again. Harmless: whoever has answered answers again.
async fn nudge(db: &Client) -> Result<()> {
    for id in orders(db).await? {
        step(&db.bucket(ORDERS), &id, |row| {
            let order = Order::parse(row.ok_or("there is no such order")?)?;
            let under_way = !matches!(order.state, "completed" | "cancelled");
            Ok(under_way.then(|| (None, order.asks())))
        })
        .await?;
    }
    Ok(())
}

async fn show(db: &Client) -> Result<()> {
    for id in orders(db).await? {
        let mut line = text(&id)?.to_owned();
        for bucket in [ORDERS, STOCK, PAYMENTS] {
            let read = db.bucket(bucket).get(id.clone()).await?;
            let state = furthest(&read)?.and_then(|row| row.split(' ').next()).unwrap_or("-");
            line.extend(["\t", state]);
        }
        println!("{line}");
    }
    Ok(())
}

/// Keys of all orders, sorted.
async fn orders(db: &Client) -> Result<BTreeSet<Bytes>> {
    let mut list = db.bucket(ORDERS).list("");
    let mut keys = BTreeSet::new();
    while let Some(page) = list.next_page().await? {
        keys.extend(page.keys.into_iter().map(|listed| listed.key));
    }
    Ok(keys)
}

fn topic(name: &str) -> Topic {
    name.parse().expect("names of topics in this file are names of topics")
}

fn text(bytes: &Bytes) -> Result<&str> {
    Ok(std::str::from_utf8(bytes)?)
}

/// All states of rows; of one bucket each is further than those before it.
const STATES: [&str; 10] = [
    "placed",
    "reserved",
    "cancelling",
    "cancelled",
    "completed", // of an order
    "held",
    "sold-out",
    "released", // of what is reserved
    "refused",
    "charged", // of a payment
];
const ORDERS: &str = "orders";
const STOCK: &str = "stock";
const PAYMENTS: &str = "payments";
const ASK_STOCK: &str = "saga.stock";
const ASK_PAYMENT: &str = "saga.payment";
const ANSWERS: &str = "saga.answers";
const DONE: &str = "saga.done";
const USAGE: &str =
    "usage: order_saga URL place FROM TO | run [orders|stock|payment] | show | nudge";
