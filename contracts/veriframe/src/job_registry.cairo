use starknet::ContractAddress;

#[starknet::interface]
trait IJobRegistry<T> {
    fn create_job(
        ref self: T,
        asset_cid_part1: felt252,
        asset_cid_part2: felt252,
        reward_amount: u256,
        deadline_timestamp: u64
    ) -> felt252;
    fn create_job_with_requirements(
        ref self: T,
        asset_cid_part1: felt252,
        asset_cid_part2: felt252,
        reward_amount: u256,
        deadline_timestamp: u64,
        min_reputation: u16
    ) -> felt252;
    fn submit_result(
        ref self: T, job_id: felt252, result_cid_part1: felt252, result_cid_part2: felt252
    );
    fn finalize_job(ref self: T, job_id: felt252);
    fn pause(ref self: T);
    fn unpause(ref self: T);
    fn register_worker(ref self: T, worker_info_cid: felt252);
    fn verify_worker(ref self: T, worker: ContractAddress, verification_status: bool);
    fn update_worker_reputation(
        ref self: T, worker: ContractAddress, job_id: felt252, quality_score: u8
    );
    fn slash_worker_reputation(ref self: T, worker: ContractAddress, slash_amount: u16);
    fn get_worker_status(self: @T, worker: ContractAddress) -> (bool, u16, u32, u32);
    fn get_minimum_reputation_for_job(self: @T, job_id: felt252) -> u16;
    fn is_worker_eligible(self: @T, worker: ContractAddress, job_id: felt252) -> bool;
    fn get_job_counter(self: @T) -> felt252;
    fn get_job_creator(self: @T, job_id: felt252) -> ContractAddress;
    fn get_job_worker(self: @T, job_id: felt252) -> ContractAddress;
    fn get_job_reward(self: @T, job_id: felt252) -> u256;
    fn get_job_asset_cid(self: @T, job_id: felt252) -> (felt252, felt252);
    fn get_job_deadline(self: @T, job_id: felt252) -> u64;
    fn is_job_completed(self: @T, job_id: felt252) -> bool;
}

#[starknet::interface]
trait IOwnable<T> {
    fn owner(self: @T) -> ContractAddress;
    fn transfer_ownership(ref self: T, new_owner: ContractAddress);
    fn renounce_ownership(ref self: T);
}

#[starknet::interface]
trait IPausable<T> {
    fn is_paused(self: @T) -> bool;
}

#[starknet::interface]
trait IReward<T> {
    fn transfer(ref self: T, recipient: ContractAddress, amount: u256) -> bool;
    fn transfer_from(
        ref self: T, sender: ContractAddress, recipient: ContractAddress, amount: u256
    ) -> bool;
}

/// Implements the published interface of VeriFrame's registry, `veriframe.abi.json`, for local
/// chains; what it does in each case follows what the published class was seen to do.
#[starknet::contract]
mod JobRegistry {
    use starknet::{ContractAddress, get_block_timestamp, get_caller_address, get_contract_address};
    use super::{IRewardDispatcher, IRewardDispatcherTrait};

    const FIRST_REPUTATION: u16 = 500;
    const VERIFIED_REPUTATION: u16 = 600;
    const DEFAULT_MINIMUM: u16 = 400;
    const MOST_REPUTATION: u16 = 1000;

    #[storage]
    struct Storage {
        owner: ContractAddress,
        paused: bool,
        entered: bool,
        reward_token: ContractAddress,
        job_counter: felt252,
        job_creators: LegacyMap<felt252, ContractAddress>,
        job_workers: LegacyMap<felt252, ContractAddress>,
        job_rewards: LegacyMap<felt252, u256>,
        job_asset_cid_part1: LegacyMap<felt252, felt252>,
        job_asset_cid_part2: LegacyMap<felt252, felt252>,
        job_result_cid_part1: LegacyMap<felt252, felt252>,
        job_result_cid_part2: LegacyMap<felt252, felt252>,
        job_deadlines: LegacyMap<felt252, u64>,
        job_completed: LegacyMap<felt252, bool>,
        job_min_reputation: LegacyMap<felt252, u16>,
        job_quality_scores: LegacyMap<felt252, u8>,
        worker_registered: LegacyMap<ContractAddress, bool>,
        worker_registration_time: LegacyMap<ContractAddress, u64>,
        worker_verified: LegacyMap<ContractAddress, bool>,
        worker_reputation: LegacyMap<ContractAddress, u16>,
        worker_completed: LegacyMap<ContractAddress, u32>,
        worker_failed: LegacyMap<ContractAddress, u32>,
    }

    #[event]
    #[derive(Drop, starknet::Event)]
    enum Event {
        OwnershipTransferred: OwnershipTransferred,
        OwnershipTransferStarted: OwnershipTransferStarted,
        Paused: Paused,
        Unpaused: Unpaused,
        JobCreated: JobCreated,
        ResultSubmitted: ResultSubmitted,
        JobFinalized: JobFinalized,
        WorkerRegistered: WorkerRegistered,
        WorkerVerified: WorkerVerified,
        ReputationUpdated: ReputationUpdated,
        ReputationSlashed: ReputationSlashed,
    }

    #[derive(Drop, starknet::Event)]
    struct OwnershipTransferred {
        #[key]
        previous_owner: ContractAddress,
        #[key]
        new_owner: ContractAddress,
    }

    /// Declared and never told: ownership passes at once.
    #[derive(Drop, starknet::Event)]
    struct OwnershipTransferStarted {
        #[key]
        previous_owner: ContractAddress,
        #[key]
        new_owner: ContractAddress,
    }

    #[derive(Drop, starknet::Event)]
    struct Paused {
        account: ContractAddress,
    }

    #[derive(Drop, starknet::Event)]
    struct Unpaused {
        account: ContractAddress,
    }

    #[derive(Drop, starknet::Event)]
    struct JobCreated {
        #[key]
        job_id: felt252,
        #[key]
        creator: ContractAddress,
        reward_amount: u256,
        deadline: u64,
    }

    #[derive(Drop, starknet::Event)]
    struct ResultSubmitted {
        #[key]
        job_id: felt252,
        #[key]
        worker: ContractAddress,
    }

    #[derive(Drop, starknet::Event)]
    struct JobFinalized {
        #[key]
        job_id: felt252,
        #[key]
        worker: ContractAddress,
        reward_amount: u256,
    }

    #[derive(Drop, starknet::Event)]
    struct WorkerRegistered {
        #[key]
        worker: ContractAddress,
        info_cid: felt252,
        registration_time: u64,
    }

    #[derive(Drop, starknet::Event)]
    struct WorkerVerified {
        #[key]
        worker: ContractAddress,
        verified: bool,
        verifier: ContractAddress,
    }

    #[derive(Drop, starknet::Event)]
    struct ReputationUpdated {
        #[key]
        worker: ContractAddress,
        job_id: felt252,
        old_reputation: u16,
        new_reputation: u16,
        quality_score: u8,
    }

    #[derive(Drop, starknet::Event)]
    struct ReputationSlashed {
        #[key]
        worker: ContractAddress,
        old_reputation: u16,
        new_reputation: u16,
        slash_amount: u16,
        reason: felt252,
    }

    #[constructor]
    fn constructor(
        ref self: ContractState, owner: ContractAddress, reward_token_address: ContractAddress
    ) {
        self.reward_token.write(reward_token_address);
        set_owner(ref self, owner);
    }

    #[abi(embed_v0)]
    impl JobRegistryImpl of super::IJobRegistry<ContractState> {
        fn create_job(
            ref self: ContractState,
            asset_cid_part1: felt252,
            asset_cid_part2: felt252,
            reward_amount: u256,
            deadline_timestamp: u64
        ) -> felt252 {
            create(
                ref self, asset_cid_part1, asset_cid_part2, reward_amount, deadline_timestamp, 0
            )
        }

        fn create_job_with_requirements(
            ref self: ContractState,
            asset_cid_part1: felt252,
            asset_cid_part2: felt252,
            reward_amount: u256,
            deadline_timestamp: u64,
            min_reputation: u16
        ) -> felt252 {
            assert(min_reputation <= MOST_REPUTATION, 'Max reputation is 1000');
            create(
                ref self,
                asset_cid_part1,
                asset_cid_part2,
                reward_amount,
                deadline_timestamp,
                min_reputation
            )
        }

        fn submit_result(
            ref self: ContractState,
            job_id: felt252,
            result_cid_part1: felt252,
            result_cid_part2: felt252
        ) {
            assert_runs(@self);
            let worker = get_caller_address();
            let creator = self.job_creators.read(job_id);
            assert(creator.is_non_zero(), 'Job does not exist');
            assert(creator != worker, 'Creator cannot be worker');
            assert(self.job_workers.read(job_id).is_zero(), 'Job already has worker');
            assert(!self.job_completed.read(job_id), 'Job already completed');
            assert(eligible(@self, worker, job_id), 'Worker not eligible for job');
            self.job_workers.write(job_id, worker);
            self.job_result_cid_part1.write(job_id, result_cid_part1);
            self.job_result_cid_part2.write(job_id, result_cid_part2);
            self.emit(ResultSubmitted { job_id, worker });
        }

        fn finalize_job(ref self: ContractState, job_id: felt252) {
            assert_runs(@self);
            enter(ref self);
            assert(self.job_creators.read(job_id).is_non_zero(), 'Job does not exist');
            assert(!self.job_completed.read(job_id), 'Job already completed');
            assert(get_block_timestamp() >= self.job_deadlines.read(job_id), 'Deadline not reached');
            let worker = self.job_workers.read(job_id);
            assert(worker.is_non_zero(), 'No worker assigned');
            self.job_completed.write(job_id, true);
            let reward_amount = self.job_rewards.read(job_id);
            IRewardDispatcher { contract_address: self.reward_token.read() }
                .transfer(worker, reward_amount);
            self.emit(JobFinalized { job_id, worker, reward_amount });
            self.entered.write(false);
        }

        fn pause(ref self: ContractState) {
            assert_owner(@self);
            assert_runs(@self);
            self.paused.write(true);
            self.emit(Paused { account: get_caller_address() });
        }

        fn unpause(ref self: ContractState) {
            assert_owner(@self);
            assert(self.paused.read(), 'Pausable: not paused');
            self.paused.write(false);
            self.emit(Unpaused { account: get_caller_address() });
        }

        fn register_worker(ref self: ContractState, worker_info_cid: felt252) {
            assert_runs(@self);
            let worker = get_caller_address();
            assert(worker.is_non_zero(), 'Caller cannot be zero');
            assert(worker_info_cid != 0, 'Worker info CID required');
            assert(!self.worker_registered.read(worker), 'Worker already registered');
            let registration_time = get_block_timestamp();
            self.worker_registered.write(worker, true);
            self.worker_registration_time.write(worker, registration_time);
            self.worker_reputation.write(worker, FIRST_REPUTATION);
            self.emit(WorkerRegistered { worker, info_cid: worker_info_cid, registration_time });
        }

        fn verify_worker(
            ref self: ContractState, worker: ContractAddress, verification_status: bool
        ) {
            assert_owner(@self);
            assert(worker.is_non_zero(), 'Worker cannot be zero');
            assert(self.worker_registered.read(worker), 'Worker not registered');
            let old = self.worker_reputation.read(worker);
            let new = if verification_status {
                if old < VERIFIED_REPUTATION {
                    VERIFIED_REPUTATION
                } else {
                    old
                }
            } else if old > 400 {
                old - 200
            } else {
                200
            };
            self.worker_verified.write(worker, verification_status);
            self.worker_reputation.write(worker, new);
            let verifier = get_caller_address();
            self.emit(WorkerVerified { worker, verified: verification_status, verifier });
        }

        fn update_worker_reputation(
            ref self: ContractState, worker: ContractAddress, job_id: felt252, quality_score: u8
        ) {
            assert_runs(@self);
            assert(self.job_creators.read(job_id) == get_caller_address(), 'Only job creator can rate');
            assert(self.job_workers.read(job_id) == worker, 'Worker must match job worker');
            assert(self.job_completed.read(job_id), 'Job not completed');
            assert(quality_score <= 100, 'Quality score max is 100');
            assert(self.job_quality_scores.read(job_id) == 0, 'Job already rated');
            self.job_quality_scores.write(job_id, quality_score);
            let old = self.worker_reputation.read(worker);
            if quality_score >= 40 && quality_score < 60 {
                return;
            }
            let new = if quality_score < 40 {
                self.worker_failed.write(worker, self.worker_failed.read(worker) + 1);
                lowered(old, 15)
            } else {
                self.worker_completed.write(worker, self.worker_completed.read(worker) + 1);
                let more: u16 = if quality_score >= 90 {
                    20
                } else if quality_score >= 75 {
                    10
                } else {
                    5
                };
                if old + more > MOST_REPUTATION {
                    MOST_REPUTATION
                } else {
                    old + more
                }
            };
            self.worker_reputation.write(worker, new);
            self
                .emit(
                    ReputationUpdated {
                        worker, job_id, old_reputation: old, new_reputation: new, quality_score
                    }
                );
        }

        fn slash_worker_reputation(
            ref self: ContractState, worker: ContractAddress, slash_amount: u16
        ) {
            assert_owner(@self);
            assert(worker.is_non_zero(), 'Worker cannot be zero');
            assert(self.worker_registered.read(worker), 'Worker not registered');
            assert(slash_amount != 0, 'Slash amount must be positive');
            let old = self.worker_reputation.read(worker);
            let new = lowered(old, slash_amount);
            self.worker_reputation.write(worker, new);
            self.worker_failed.write(worker, self.worker_failed.read(worker) + 1);
            self
                .emit(
                    ReputationSlashed {
                        worker,
                        old_reputation: old,
                        new_reputation: new,
                        slash_amount,
                        reason: 'misconduct'
                    }
                );
        }

        fn get_worker_status(
            self: @ContractState, worker: ContractAddress
        ) -> (bool, u16, u32, u32) {
            (
                self.worker_verified.read(worker),
                self.worker_reputation.read(worker),
                self.worker_completed.read(worker),
                self.worker_failed.read(worker)
            )
        }

        fn get_minimum_reputation_for_job(self: @ContractState, job_id: felt252) -> u16 {
            minimum(self, job_id)
        }

        fn is_worker_eligible(
            self: @ContractState, worker: ContractAddress, job_id: felt252
        ) -> bool {
            eligible(self, worker, job_id)
        }

        fn get_job_counter(self: @ContractState) -> felt252 {
            self.job_counter.read()
        }

        fn get_job_creator(self: @ContractState, job_id: felt252) -> ContractAddress {
            self.job_creators.read(job_id)
        }

        fn get_job_worker(self: @ContractState, job_id: felt252) -> ContractAddress {
            self.job_workers.read(job_id)
        }

        fn get_job_reward(self: @ContractState, job_id: felt252) -> u256 {
            self.job_rewards.read(job_id)
        }

        fn get_job_asset_cid(self: @ContractState, job_id: felt252) -> (felt252, felt252) {
            (self.job_asset_cid_part1.read(job_id), self.job_asset_cid_part2.read(job_id))
        }

        fn get_job_deadline(self: @ContractState, job_id: felt252) -> u64 {
            self.job_deadlines.read(job_id)
        }

        fn is_job_completed(self: @ContractState, job_id: felt252) -> bool {
            self.job_completed.read(job_id)
        }
    }

    #[abi(embed_v0)]
    impl OwnableImpl of super::IOwnable<ContractState> {
        fn owner(self: @ContractState) -> ContractAddress {
            self.owner.read()
        }

        fn transfer_ownership(ref self: ContractState, new_owner: ContractAddress) {
            assert(new_owner.is_non_zero(), 'New owner is the zero address');
            assert_owner(@self);
            set_owner(ref self, new_owner);
        }

        fn renounce_ownership(ref self: ContractState) {
            assert_owner(@self);
            set_owner(ref self, starknet::contract_address_const::<0>());
        }
    }

    #[abi(embed_v0)]
    impl PausableImpl of super::IPausable<ContractState> {
        fn is_paused(self: @ContractState) -> bool {
            self.paused.read()
        }
    }

    fn create(
        ref self: ContractState,
        asset_cid_part1: felt252,
        asset_cid_part2: felt252,
        reward_amount: u256,
        deadline: u64,
        min_reputation: u16
    ) -> felt252 {
        assert_runs(@self);
        enter(ref self);
        let creator = get_caller_address();
        assert(creator.is_non_zero(), 'Caller cannot be zero');
        assert(reward_amount > 0, 'Reward must be positive');
        assert(deadline > get_block_timestamp(), 'Deadline must be in future');
        let job_id = self.job_counter.read() + 1;
        self.job_counter.write(job_id);
        self.job_creators.write(job_id, creator);
        self.job_rewards.write(job_id, reward_amount);
        self.job_asset_cid_part1.write(job_id, asset_cid_part1);
        self.job_asset_cid_part2.write(job_id, asset_cid_part2);
        self.job_deadlines.write(job_id, deadline);
        self.job_min_reputation.write(job_id, min_reputation);
        IRewardDispatcher { contract_address: self.reward_token.read() }
            .transfer_from(creator, get_contract_address(), reward_amount);
        self.emit(JobCreated { job_id, creator, reward_amount, deadline });
        self.entered.write(false);
        job_id
    }

    fn eligible(self: @ContractState, worker: ContractAddress, job_id: felt252) -> bool {
        if !self.worker_registered.read(worker) || !self.worker_verified.read(worker) {
            return false;
        }
        if self.worker_reputation.read(worker) < minimum(self, job_id) {
            return false;
        }
        let failed = self.worker_failed.read(worker);
        let all = self.worker_completed.read(worker) + failed;
        all <= 5 || failed * 100 / all <= 30
    }

    fn minimum(self: @ContractState, job_id: felt252) -> u16 {
        let asked = self.job_min_reputation.read(job_id);
        if asked == 0 {
            DEFAULT_MINIMUM
        } else {
            asked
        }
    }

    /// Reputation never falls to zero: that would look like nobody.
    fn lowered(old: u16, less: u16) -> u16 {
        if old > less {
            old - less
        } else {
            1
        }
    }

    fn set_owner(ref self: ContractState, new_owner: ContractAddress) {
        let previous_owner = self.owner.read();
        self.owner.write(new_owner);
        self.emit(OwnershipTransferred { previous_owner, new_owner });
    }

    fn enter(ref self: ContractState) {
        assert(!self.entered.read(), 'ReentrancyGuard: reentrant call');
        self.entered.write(true);
    }

    fn assert_runs(self: @ContractState) {
        assert(!self.paused.read(), 'Pausable: paused');
    }

    fn assert_owner(self: @ContractState) {
        let caller = get_caller_address();
        assert(caller.is_non_zero(), 'Caller is the zero address');
        assert(caller == self.owner.read(), 'Caller is not the owner');
    }
}
