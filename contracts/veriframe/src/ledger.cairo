/// One thing to tell of.
#[derive(Drop, Serde)]
struct Move {
    dropped: bool,
    key: u256,
    amount: u256,
    note: ByteArray,
}

/// Tells of what messages from layer 1 say, and keeps nothing: for tests of indexing.
#[starknet::contract]
mod Ledger {
    use super::Move;

    #[storage]
    struct Storage {}

    #[event]
    #[derive(Drop, starknet::Event)]
    enum Event {
        Put: Put,
        Drop: Dropped,
    }

    #[derive(Drop, starknet::Event)]
    struct Put {
        #[key]
        key: u256,
        amount: u256,
        note: ByteArray,
    }

    #[derive(Drop, starknet::Event)]
    struct Dropped {
        #[key]
        key: u256,
    }

    #[l1_handler]
    fn tell(ref self: ContractState, from_address: felt252, moves: Array<Move>) {
        let mut moves = moves;
        loop {
            match moves.pop_front() {
                Option::Some(one) => {
                    let Move { dropped, key, amount, note } = one;
                    if dropped {
                        self.emit(Dropped { key });
                    } else {
                        self.emit(Put { key, amount, note });
                    }
                },
                Option::None => { break; },
            };
        }
    }
}
