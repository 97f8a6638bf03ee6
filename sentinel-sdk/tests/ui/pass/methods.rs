//! Methods, in traits and out of them; with the strictest lints.
#![deny(warnings, unused, unused_qualifications)]

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use sentinel_sdk::guarded_action;

type Short<T> = Result<T, sentinel_sdk::Error>;

#[derive(Clone)]
struct Shop {
    orders: Vec<String>,
    price: f64,
}

impl Shop {
    #[guarded_action]
    fn open() -> Short<Self> {
        Ok(Self { orders: Vec::new(), price: 0.01 })
    }

    #[guarded_action(cost_usd = self.price * self.orders.len() as f64)]
    fn by_reference(&self) -> Short<&Self> {
        Ok(self)
    }

    #[guarded_action(cost_usd = self.price, actual_cost_usd = |order| order.len() as f64)]
    fn by_unique_reference(&mut self, what: &str) -> Short<&mut String> {
        self.orders.push(what.to_owned());
        Ok(self.orders.last_mut().unwrap())
    }

    #[guarded_action(cost_usd = self.price)]
    fn by_value(mut self) -> Short<Vec<String>> {
        self.orders.clear();
        Ok(self.orders)
    }

    #[guarded_action]
    async fn async_by_reference<'a>(&'a self, other: &'a str) -> Short<&'a str> {
        std::future::ready(()).await;
        Ok(self.orders.first().map_or(other, String::as_str))
    }

    #[guarded_action(cost_usd = self.price)]
    async fn async_by_unique_reference(&mut self) -> Short<&mut Self> {
        self.orders.clear();
        Ok(self)
    }

    #[guarded_action]
    async fn async_by_value(self) -> Short<impl Iterator<Item = String>> {
        Ok(self.orders.into_iter())
    }

    #[guarded_action]
    fn in_a_box(self: Box<Self>) -> Short<Self> {
        Ok(*self)
    }

    #[guarded_action]
    fn shared(self: Rc<Self>) -> Short<usize> {
        Ok(self.orders.len())
    }

    #[guarded_action]
    async fn shared_async(self: Arc<Self>) -> Short<usize> {
        Ok(self.orders.len())
    }

    #[guarded_action]
    fn pinned(self: Pin<&mut Self>) -> Short<f64> {
        Ok(self.price)
    }

    #[guarded_action]
    fn shared_reference(self: &Arc<Self>) -> Short<usize> {
        Ok(Arc::strong_count(self))
    }
}

trait Sells {
    type Good: Clone;
    const PRICE: f64;

    fn good(&self) -> Option<Self::Good>;

    /// Guarded wherever nobody writes another.
    #[guarded_action(cost_usd = Self::PRICE)]
    fn sell(&self) -> Short<Option<Self::Good>> {
        Ok(self.good())
    }

    #[guarded_action(cost_usd = Self::PRICE)]
    async fn sell_async(&mut self, good: Self::Good) -> Short<Vec<Self::Good>>
    where
        Self: Sized,
    {
        let other = self.good().ok_or_else(|| Shop::open().map(drop).unwrap_err())?;
        Ok(vec![good, other])
    }

    async fn deliver(&self, to: &str) -> Result<String, Box<dyn std::error::Error>>;

    fn pack(self) -> Short<impl Iterator<Item = Self::Good>>;
}

impl Sells for Shop {
    type Good = String;
    const PRICE: f64 = 0.02;

    fn good(&self) -> Option<String> {
        self.orders.first().cloned()
    }

    #[guarded_action(name = "deliver_order", skip(to))]
    async fn deliver(&self, to: &str) -> Result<String, Box<dyn std::error::Error>> {
        let good = self.good().ok_or("nothing was ordered")?;
        std::future::ready(()).await;
        Ok(format!("{good} to {to}"))
    }

    #[guarded_action]
    fn pack(self) -> Short<impl Iterator<Item = String>> {
        Ok(self.orders.into_iter())
    }
}

struct Shelf<'a, T, const N: usize> {
    goods: [&'a T; N],
}

impl<'a, T: Clone, const N: usize> Shelf<'a, T, N>
where
    T: PartialEq,
{
    #[guarded_action(cost_usd = N as f64)]
    fn find<U>(&self, wanted: &U) -> Short<Option<&'a T>>
    where
        U: PartialEq<T>,
    {
        Ok(self.goods.iter().copied().find(|good| *wanted == **good))
    }

    #[guarded_action]
    async fn take(self) -> Short<Vec<T>> {
        Ok(self.goods.into_iter().cloned().collect())
    }
}

fn main() {
    let _ = (Shop::open, Shop::by_reference, Shop::by_unique_reference, Shop::by_value, Shop::in_a_box);
    let _ = (Shop::async_by_reference, Shop::async_by_unique_reference, Shop::shared, Shop::shared_async);
    let _ = (Shop::pinned, Shop::shared_reference, Shop::sell, Shop::sell_async, Shop::deliver);
    let shop = Shop { orders: Vec::new(), price: 0.01 };
    let _unpolled = shop.clone().async_by_value();
    let _uncalled = || shop.pack().map(Iterator::count);
    let shelf = Shelf { goods: [&1, &2] };
    let _uncalled = || shelf.find(&1);
    let _unpolled = Shelf { goods: [&1] }.take();
}
