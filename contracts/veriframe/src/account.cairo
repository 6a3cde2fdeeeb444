use starknet::account::Call;

#[starknet::interface]
trait IAccount<T> {
    fn __validate__(self: @T, calls: Array<Call>) -> felt252;
    fn __execute__(ref self: T, calls: Array<Call>) -> Array<Span<felt252>>;
    fn is_valid_signature(self: @T, hash: felt252, signature: Array<felt252>) -> felt252;
    fn get_public_key(self: @T) -> felt252;
    fn supports_interface(self: @T, interface_id: felt252) -> bool;
}

/// An account with one key, for local chains.
#[starknet::contract(account)]
mod Account {
    use ecdsa::check_ecdsa_signature;
    use starknet::account::Call;
    use starknet::SyscallResultTrait;

    const SRC6: felt252 = 0x2ceccef7f994940b3962a6c67e0ba4fcd37df7d131417c604f91e03caecc1cd;

    #[storage]
    struct Storage {
        public_key: felt252,
    }

    #[constructor]
    fn constructor(ref self: ContractState, public_key: felt252) {
        self.public_key.write(public_key);
    }

    #[abi(embed_v0)]
    impl AccountImpl of super::IAccount<ContractState> {
        fn __validate__(self: @ContractState, calls: Array<Call>) -> felt252 {
            let info = starknet::get_tx_info().unbox();
            assert(valid(self, info.transaction_hash, info.signature), 'Account: invalid signature');
            starknet::VALIDATED
        }

        fn __execute__(ref self: ContractState, calls: Array<Call>) -> Array<Span<felt252>> {
            assert(starknet::get_caller_address().is_zero(), 'Account: invalid caller');
            let mut results = array![];
            let mut calls = calls;
            loop {
                match calls.pop_front() {
                    Option::Some(call) => {
                        let Call { to, selector, calldata } = call;
                        results.append(
                            starknet::call_contract_syscall(to, selector, calldata).unwrap_syscall()
                        );
                    },
                    Option::None => { break; },
                };
            };
            results
        }

        fn is_valid_signature(
            self: @ContractState, hash: felt252, signature: Array<felt252>
        ) -> felt252 {
            if valid(self, hash, signature.span()) {
                starknet::VALIDATED
            } else {
                0
            }
        }

        fn get_public_key(self: @ContractState) -> felt252 {
            self.public_key.read()
        }

        fn supports_interface(self: @ContractState, interface_id: felt252) -> bool {
            interface_id == SRC6
        }
    }

    fn valid(self: @ContractState, hash: felt252, signature: Span<felt252>) -> bool {
        signature.len() == 2
            && check_ecdsa_signature(
                hash, self.public_key.read(), *signature.at(0), *signature.at(1)
            )
    }
}
