use starknet::ContractAddress;

#[starknet::interface]
trait IToken<T> {
    fn total_supply(self: @T) -> u256;
    fn balance_of(self: @T, account: ContractAddress) -> u256;
    fn allowance(self: @T, owner: ContractAddress, spender: ContractAddress) -> u256;
    fn transfer(ref self: T, recipient: ContractAddress, amount: u256) -> bool;
    fn transfer_from(
        ref self: T, sender: ContractAddress, recipient: ContractAddress, amount: u256
    ) -> bool;
    fn approve(ref self: T, spender: ContractAddress, amount: u256) -> bool;
    fn mint(ref self: T, recipient: ContractAddress, amount: u256);
    fn mint_many(ref self: T, recipient: ContractAddress, amount: u256, times: u32);
    fn note(ref self: T, text: ByteArray, tags: Array<felt252>, weight: Option<u64>);
}

/// A token that anybody may mint, for local chains. `note` tells of every kind of value.
#[starknet::contract]
mod Token {
    use starknet::{ContractAddress, get_caller_address};

    #[storage]
    struct Storage {
        total_supply: u256,
        balances: LegacyMap<ContractAddress, u256>,
        allowances: LegacyMap<(ContractAddress, ContractAddress), u256>,
    }

    #[event]
    #[derive(Drop, starknet::Event)]
    enum Event {
        Transfer: Transfer,
        Approval: Approval,
        Noted: Noted,
    }

    #[derive(Drop, starknet::Event)]
    struct Transfer {
        #[key]
        from: ContractAddress,
        #[key]
        to: ContractAddress,
        value: u256,
    }

    #[derive(Drop, starknet::Event)]
    struct Approval {
        #[key]
        owner: ContractAddress,
        #[key]
        spender: ContractAddress,
        value: u256,
    }

    #[derive(Drop, starknet::Event)]
    struct Noted {
        #[key]
        by: ContractAddress,
        text: ByteArray,
        tags: Array<felt252>,
        weight: Option<u64>,
        place: (i8, bool),
    }

    #[constructor]
    fn constructor(ref self: ContractState) {}

    #[abi(embed_v0)]
    impl TokenImpl of super::IToken<ContractState> {
        fn total_supply(self: @ContractState) -> u256 {
            self.total_supply.read()
        }

        fn balance_of(self: @ContractState, account: ContractAddress) -> u256 {
            self.balances.read(account)
        }

        fn allowance(
            self: @ContractState, owner: ContractAddress, spender: ContractAddress
        ) -> u256 {
            self.allowances.read((owner, spender))
        }

        fn transfer(ref self: ContractState, recipient: ContractAddress, amount: u256) -> bool {
            move(ref self, get_caller_address(), recipient, amount);
            true
        }

        fn transfer_from(
            ref self: ContractState,
            sender: ContractAddress,
            recipient: ContractAddress,
            amount: u256
        ) -> bool {
            let spender = get_caller_address();
            let allowed = self.allowances.read((sender, spender));
            assert(allowed >= amount, 'ERC20: insufficient allowance');
            self.allowances.write((sender, spender), allowed - amount);
            move(ref self, sender, recipient, amount);
            true
        }

        fn approve(ref self: ContractState, spender: ContractAddress, amount: u256) -> bool {
            let owner = get_caller_address();
            self.allowances.write((owner, spender), amount);
            self.emit(Approval { owner, spender, value: amount });
            true
        }

        fn mint(ref self: ContractState, recipient: ContractAddress, amount: u256) {
            create(ref self, recipient, amount);
        }

        fn mint_many(
            ref self: ContractState, recipient: ContractAddress, amount: u256, times: u32
        ) {
            let mut left = times;
            while left != 0 {
                create(ref self, recipient, amount);
                left -= 1;
            };
        }

        fn note(
            ref self: ContractState, text: ByteArray, tags: Array<felt252>, weight: Option<u64>
        ) {
            self.emit(Noted { by: get_caller_address(), text, tags, weight, place: (-5, true) });
        }
    }

    fn create(ref self: ContractState, recipient: ContractAddress, amount: u256) {
        self.total_supply.write(self.total_supply.read() + amount);
        self.balances.write(recipient, self.balances.read(recipient) + amount);
        let from = starknet::contract_address_const::<0>();
        self.emit(Transfer { from, to: recipient, value: amount });
    }

    fn move(
        ref self: ContractState, sender: ContractAddress, recipient: ContractAddress, amount: u256
    ) {
        let balance = self.balances.read(sender);
        assert(balance >= amount, 'ERC20: insufficient balance');
        self.balances.write(sender, balance - amount);
        self.balances.write(recipient, self.balances.read(recipient) + amount);
        self.emit(Transfer { from: sender, to: recipient, value: amount });
    }
}
