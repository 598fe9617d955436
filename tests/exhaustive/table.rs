//! Values by number: equal values get the same one, so that a state of the model is a few numbers that are quickly compared.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// Numbered values. Only looked up, never walked, so the order of the map can't be seen.
#[derive(Debug)]
pub struct Table<T> {
    numbers: HashMap<Rc<T>, u32>,
    values: Vec<Rc<T>>,
}

impl<T: Eq + Hash> Table<T> {
    pub fn new() -> Table<T> {
        Table {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }

    /// The number of a value, and whether it is new.
    pub fn put(&mut self, value: T) -> (u32, bool) {
        if let Some(&number) = self.numbers.get(&value) {
            return (number, false);
        }
        let number = u32::try_from(self.values.len()).expect("fewer than 2³² values");
        let value = Rc::new(value);
        self.numbers.insert(Rc::clone(&value), number);
        self.values.push(value);
        (number, true)
    }

    pub fn get(&self, number: u32) -> &Rc<T> {
        &self.values[number as usize]
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }
}
