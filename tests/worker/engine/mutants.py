"""The mechanisms of the engine that no answer may show; `tests.mutation` switches them off."""

from tests.mutant import Mutant

REUSE = "tests/worker/engine/test_reuse.py::"
SCHEDULER = "tests/worker/engine/test_scheduler.py::"
SAMPLER = "tests/worker/engine/test_sampler.py::"
RUNNER = "tests/worker/engine/test_torch_runner.py::"
GENERIC = "tests/worker/models/test_generic.py::"
LORA = "tests/worker/models/test_lora.py::"
GRAPHS = "tests/worker/engine/test_graphs.py::"
SCRIPT = "tests/worker/engine/test_script.py::"
WAITING = "tests/worker/engine/test_waiting.py::"
ROOM = "tests/worker/test_room.py::"
MEMORY = "tests/worker/models/test_memory.py::"
LARGEST = "tests/acceptance/test_memory.py::"
LATE = "tests/worker/engine/test_late.py::"
GRAMMAR = "tests/worker/engine/test_grammar.py::"
STRUCTURE = "tests/acceptance/test_structure.py::"
ANSWER = "tests/worker/test_answer.py::"
OUTBOX = "tests/worker/test_outbox.py::"
ELSEWHERE = "tests/worker/engine/test_elsewhere.py::"

MUTANTS = (
    Mutant(
        "media wait for room",
        "worker/room.py",
        "return not self._places or taken + self.limits.most_bytes <= self.limits.total_bytes",
        "return True",
        ROOM + "test_requests_wait_until_one_as_large_as_any_may_be_fits",
    ),
    Mutant(
        "media that were not planned for are refused",
        "worker/task.py",
        "        self._place.settle(prompt.feature_bytes)",
        "        pass",
        LARGEST + "test_more_pictures_than_were_planned_for_are_refused_and_the_next_request_is_answered",
    ),
    Mutant(
        "what the trial took is left to it",
        "worker/models/memory.py",
        "int(num_bytes * growth * _LOSS)",
        "0",
        MEMORY + "test_context_is_cut_to_what_fits_and_the_operator_is_told",
    ),
    Mutant(
        "pictures tell tokens apart",
        "worker/engine/pieces.py",
        "        shown[piece.places] = np.resize(np.frombuffer(piece.digest, np.int64), len(piece.places))",
        "        pass",
        REUSE + "test_the_same_words_about_another_picture_share_nothing_from_it_on",
    ),
    Mutant(
        "media hashes know shapes",
        "worker/engine/pieces.py",
        'f"{name} {feature.dtype} {[*feature.shape]}".encode()',
        "b''",
        REUSE + "test_media_of_the_same_bytes_in_another_shape_are_others",
    ),
    Mutant(
        "shorter prompts of a group end where nobody looks",
        "worker/engine/cache.py",
        "torch.where(is_own, indices, self.scratch)",
        "indices",
        GENERIC + "test_rows_of_a_mixed_batch_say_what_generate_says_of_each[llava]",
    ),
    Mutant(
        "each prompt of a group takes its own adapter",
        "worker/engine/prefill.py",
        "select([prefill._sequence.adapter for prefill in prefills])",
        "select([prefills[0]._sequence.adapter])",
        LORA + "test_eight_rows_of_base_and_adapters_answer_as_alone_and_as_the_authors_code",
    ),
    Mutant(
        "a prompt that begins as another waits for it",
        "worker/engine/engine.py",
        "if sequence is not None and self._scheduler.would_share(sequence):",
        "if False:",
        SCHEDULER + "test_prompt_that_begins_as_one_set_aside_waits_and_finds_it",
    ),
    Mutant(
        "a program is compared with the eager step",
        "worker/engine/script.py",
        "            check_alike(program(feed.first(count), width), expected[:count])",
        "            pass",
        SCRIPT + "test_what_cannot_be_recorded_is_run_and_said_once",
    ),
    Mutant(
        "what looks at numbers is no program",
        "worker/engine/script.py",
        "unseen(lambda: self._eager(feed, slots, width))",
        "self._eager(feed, slots, width)",
        SCRIPT + "test_a_step_that_looks_at_its_numbers_stays_eager",
    ),
    Mutant(
        "programs of adapters that are gone are forgotten",
        "worker/engine/script.py",
        "            self.programs.pop(True, None)",
        "            pass",
        SCRIPT + "test_a_program_with_adapters_is_forgotten_once_they_change",
    ),
    Mutant(
        "adapters tell tokens apart",
        "worker/engine/torch_runner.py",
        "space = self.adapters.identity(sequence.adapter), ",
        "space = 0, ",
        LORA + "test_same_prompt_is_answered_by_each_in_its_own_way",
    ),
    Mutant(
        "a slot filled anew is another adapter",
        "worker/engine/adapters.py",
        "return slot, self._fillings[slot]",
        "return slot",
        LORA + "test_slot_that_is_filled_anew_shares_nothing_of_what_it_held",
    ),
    Mutant(
        "adapters tell encoded media apart",
        "worker/engine/prefill.py",
        "return self._reader.adapters.identity(self._sequence.adapter)",
        "return 0",
        LORA + "test_picture_is_encoded_by_each_adapters_own_tower",
    ),
    Mutant(
        "each row takes its own adapter",
        "worker/engine/adapters.py",
        "chosen = distinct if len(distinct) == 1 else list(slots)",
        "chosen = distinct[:1]",
        LORA + "test_eight_rows_of_base_and_adapters_answer_as_alone_and_as_the_authors_code",
    ),
    Mutant(
        "rows that move take their tokens along",
        "worker/engine/torch_runner.py",
        "        self._cache.swap(row, other)",
        "        pass",
        RUNNER + "test_rows_that_join_and_leave_disturb_nobody",
    ),
    Mutant(
        "a row is copied before it is read on",
        "worker/engine/rows.py",
        "        if source != row and length:",
        "        if False:",
        REUSE + "test_running_rows_are_shared_and_not_disturbed",
    ),
    Mutant(
        "what broke is not used again",
        "worker/engine/scheduler.py",
        "self._content(sequence, sequence.num_tokens - 1) if is_sound else None",
        "self._content(sequence, sequence.num_tokens - 1)",
        SCHEDULER + "test_a_row_that_broke_is_not_used_again",
    ),
    Mutant(
        "an answer's last token was not fed",
        "worker/engine/scheduler.py",
        "self._rows.end(row, self._content(sequence, sequence.num_tokens - 1) if is_sound else None)",
        "self._rows.end(row, self._content(sequence, sequence.num_tokens) if is_sound else None)",
        SCHEDULER + "test_next_turn_reads_only_what_is_new",
    ),
    Mutant(
        "no row sees what an earlier one left",
        "worker/engine/cache.py",
        "seen = columns <= indices[..., None]",
        "seen = columns <= indices.max()",
        RUNNER + "test_a_request_in_company_is_answered_as_if_alone",
    ),
    Mutant(
        "sliding layers look back so far only",
        "worker/engine/cache.py",
        "seen &= columns > indices[..., None] - self._window",
        "pass",
        "tests/worker/models/test_generic.py::test_rows_of_a_mixed_batch_say_what_generate_says_of_each[gptoss]",
    ),
    Mutant(
        "positions of pictures are fewer than their tokens",
        "worker/engine/cache.py",
        "return indices, [index + shift for index, shift in zip(indices, self._shifts[:count], strict=True)]",
        "return indices, indices",
        "tests/worker/models/test_generic.py",
    ),
    Mutant(
        "pictures that see themselves are not cut",
        "worker/engine/prefill.py",
        "end = call.last_cut(start, min(start + budget, self._num_wanted))",
        "end = min(start + budget, self._num_wanted)",
        REUSE + "test_chunks_end_beside_pictures_that_see_themselves_whole",
    ),
    Mutant(
        "long prompts are read in parts",
        "worker/engine/engine.py",
        "reading.prefill.advance(budget)",
        "reading.prefill.advance(10**6)",
        SCHEDULER + "test_running_sequences_get_a_token_in_every_step_of_a_long_prefill",
    ),
    Mutant(
        "lower numbers go first",
        "worker/engine/scheduler.py",
        "heappush(self._line, (sequence.priority, next(self._arrivals), sequence))",
        "heappush(self._line, (0, next(self._arrivals), sequence))",
        SCHEDULER + "test_lower_priority_number_goes_first_and_equals_in_the_order_they_came",
    ),
    Mutant(
        "encoded media are bounded",
        "worker/engine/encoder.py",
        "while self.stats.size_bytes > self._max_bytes:",
        "while False:",
        REUSE + "test_remembered_media_are_bounded_and_the_oldest_go_first",
    ),
    Mutant(
        "encoded media are remembered",
        "worker/engine/encoder.py",
        "        self._known[key] = encoded",
        "        pass",
        REUSE + "test_picture_of_another_conversation_is_not_encoded_again",
    ),
    Mutant(
        "draws follow the position",
        "worker/engine/sampler.py",
        "uniform(s.sampling.seed, s.num_chosen)",
        "uniform(s.sampling.seed, 0)",
        SAMPLER + "test_positions_of_one_answer_follow_the_distribution_too",
    ),
    Mutant(
        "the dead leave no counts",
        "worker/engine/counts.py",
        "self._prompts[row] = False",
        "pass",
        SAMPLER + "test_a_sequence_that_is_gone_leaves_nothing_to_the_next_one",
    ),
    Mutant(
        "rows of nobody write where nobody looks",
        "worker/engine/torch_runner.py",
        "padding(self._cache.scratch)",
        "padding(0)",
        GRAPHS + "test_rows_that_fill_a_bucket_leave_what_rests_there_alone",
    ),
    Mutant(
        "tokens under way are fed",
        "worker/engine/torch_runner.py",
        "feed.fetch(before.choice.token_ids)",
        "pass",
        GRAPHS + "test_steps_that_overlap_say_what_steps_in_order_say",
    ),
    Mutant(
        "tokens under way are counted",
        "worker/engine/counts.py",
        "        if newest is not None:",
        "        if False:",
        GRAPHS + "test_steps_that_overlap_say_what_steps_in_order_say",
    ),
    Mutant(
        "replays are compared",
        "worker/engine/graphs.py",
        "        check_alike(self._logits[: len(expected)], expected)",
        "        pass",
        GRAPHS + "test_what_cannot_be_recorded_is_run_and_said_once[differs]",
    ),
    Mutant(
        "rotary positions are kept still",
        "worker/engine/torch_runner.py",
        "        settle(find_decoder(model), self._config, max_model_len)",
        "        pass",
        WAITING + "test_a_step_waits_for_nothing_once_one_like_it_was_made",
    ),
    Mutant(
        "a step waits for no slow mask",
        "worker/engine/engine.py",
        "late_rows([sequence.constraint for sequence in self._scheduler.running])",
        "set()",
        LATE + "test_others_tokens_come_while_a_mask_is_held",
    ),
    Mutant(
        "rows that sit out leave the first rows to others",
        "worker/engine/scheduler.py",
        "            self._rows.swap(row, other)",
        "            pass",
        LATE + "test_real_rows_keep_what_they_remember_when_they_sit_out",
    ),
    Mutant(
        "who sat out a broken step isn't suspected",
        "worker/engine/engine.py",
        "sorted(self._scheduler.running, key=failed.__contains__)",
        "list(self._scheduler.running)",
        LATE + "test_row_that_sat_out_a_broken_step_is_not_suspected",
    ),
    Mutant(
        "a mask's work is bounded",
        "worker/engine/grammar.py",
        "self._is_too_dear |= self._mask_s > MAX_MASK_S",
        "pass",
        GRAMMAR + "test_what_takes_too_much_work_costs_its_own_answer_only[MAX_MASK_S]",
    ),
    Mutant(
        "what is too dear is followed no further",
        "worker/engine/grammar.py",
        "return self._is_too_dear or self._matcher.is_error()",
        "return self._matcher.is_error()",
        STRUCTURE + "test_what_is_dear_to_follow_costs_its_own_request_only[widening]",
    ),
    Mutant(
        "nobody waits for a character for ever",
        "worker/engine/detokenizer.py",
        "if num_waiting < MAX_WAITING and (",
        "if (",
        ANSWER + "test_a_token_costs_the_same_however_long_the_answer_is",
    ),
    Mutant(
        "what was told need not be held",
        "worker/outbox.py",
        "        del said.held[: len(logprobs) - num_told_before]",
        "        pass",
        OUTBOX + "test_events_tell_what_is_held_however_steps_are_joined_and_attempts_follow_each_other",
    ),
    Mutant(
        "what is to be told is counted where earlier attempts hold it",
        "worker/outbox.py",
        "        self._num_held.update(",
        "        dict(",
        OUTBOX + "test_events_tell_what_is_held_however_steps_are_joined_and_attempts_follow_each_other",
    ),
    Mutant(
        "what sampling is told goes to the device",
        "worker/engine/sampler.py",
        "return upload(values, torch.float32, like.device)[:, None]",
        "return torch.tensor(values, dtype=torch.float32)[:, None]",
        ELSEWHERE + "test_engine_works_on_devices_that_hold_their_numbers_in_the_hosts_memory",
    ),
    Mutant(
        "adapters find their rows on every device",
        "worker/engine/adapters.py",
        "slots = slots.to(self._a.device)",
        "slots = slots",
        ELSEWHERE + "test_engine_works_on_devices_that_hold_their_numbers_in_the_hosts_memory",
    ),
)
