"""`model.fit` that gives the same weights on any number of replicas.

In Keras 3.15 under `tf.distribute` gradients are clipped before they are summed over the replicas,
the means of replicas are averaged whatever they are means of, accumulation fails, and batches of
several workers cannot be read. `ExactTrainer` replaces the steps alone: data, callbacks, metrics
and optimizers stay Keras's own.
"""

import contextlib
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from llama_keras.data.shares import check_order, shard_by_rows, share_out
from llama_keras.errors import InputError
from llama_keras.training.losses import LossKind, mask_of
from llama_keras.training.made_before import build_metrics, build_optimizer
from llama_keras.training.micro_batches import add_over_parts
from llama_keras.training.optimizers_apart import check_optimizer, expect_summed_gradients
from llama_keras.training.replicas import across, split_rows, sum_over_replicas
from llama_keras.training.strategies import is_chief, worker_count

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    # No subclass of keras.Model: Keras makes a functional model by changing the bases of all its
    # classes, which would reach every other model of this kind.
    _Model = object


class ExactTrainer(_Model):
    """Mixed into a `keras.Model`: training steps that are exact under every strategy.

    The loss is the mean over the *global* batch (by rows, or by whatever the loss counts), whatever
    part of it each replica has, none included; gradients are summed over the replicas once, and
    then clipped, averaged (EMA) and applied by any Keras optimizer. Overflow under float16 on one
    replica skips the step on all. With one replica all is as in Keras.

    A model is built under `strategy.scope()`, as Keras asks; `compile` may stand outside of it
    where the optimizer is given by its name.

    Subclasses that override `compute_loss` say whether it divides by the number of replicas as
    Keras's losses do (`loss_is_scaled`; False for a plain mean), may say what the mean is over
    (`loss_count`), and that its rows are compared with each other (`loss_couples_rows`, as
    contrastive losses do: each replica then sees the answers of all).

    Example:
    ```python
    import keras, numpy as np
    from llama_keras.training import ExactTrainer

    class Model(ExactTrainer, keras.Model):
        pass

    inputs = keras.Input((4,))
    model = Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adamw", loss="mse", gradient_accumulation_steps=4)
    model.fit(np.ones((32, 4)), np.ones((32, 1)), batch_size=16, verbose=0)
    ```
    """

    # Whether `compute_loss` divides by the number of replicas, as Keras's losses do.
    loss_is_scaled = True
    # Whether the loss of one row depends on the others of the batch.
    loss_couples_rows = False

    def compile(self, *args, gradient_accumulation_steps: int = 1, **kwargs):
        """Prepares training; see `keras.Model.compile`.

        Args:
            *args: of `keras.Model.compile`.
            gradient_accumulation_steps: parts of a batch that go through the model one after the
                other, so that the activations of one part alone are in memory. The update is that
                of the whole batch. (That of an optimizer instead collects several whole batches.)
            **kwargs: of `keras.Model.compile`.

        Raises:
            InputError: the number is not positive, or an optimizer's setting does not work under
                the model's strategy.
        """
        parts = gradient_accumulation_steps
        if not isinstance(parts, int) or parts < 1:
            raise InputError(
                f"gradient_accumulation_steps must be a positive integer; received {parts!r}."
            )
        if parts > 1 and self.loss_couples_rows:
            raise InputError(
                "The rows of a batch are compared with each other here, so a batch cannot be taken "
                "in parts; leave gradient_accumulation_steps out and take smaller batches."
            )
        with self.scope():
            super().compile(*args, **kwargs)
        self.gradient_accumulation_steps = parts
        self._metrics_are_made = False
        self._loss_kind = LossKind.of(self._given_loss(args, kwargs))
        if self.num_replicas > 1:
            check_optimizer(self.optimizer, strategy=self.distribute_strategy)

    @staticmethod
    def _given_loss(args, kwargs):
        # `compile(optimizer, loss, loss_weights, …)`: what Keras makes of it is private.
        return kwargs.get("loss", args[1] if len(args) > 1 else None)

    @property
    def num_replicas(self) -> int:
        """How many replicas of the model learn together."""
        return self.distribute_strategy.num_replicas_in_sync

    def writes_files(self) -> bool:
        """Says whether this process is the one of several workers that writes files.

        Raises:
            InputError: several workers are in `scope()`: Keras makes variables when it saves, which
                in there is a thing for all of them together.
        """
        strategy = self.distribute_strategy
        if tf.distribute.has_strategy() and worker_count(strategy) > 1:
            raise InputError("With several workers, save outside of strategy.scope().")
        return is_chief(strategy)

    def scope(self) -> contextlib.AbstractContextManager:
        """Gives the context in which variables of the model's strategy are made."""
        return self.distribute_strategy.scope()

    def distributed(self, make):
        """Gives the data set of `make` (a function of `data.shares.Share`) for the replicas."""
        return share_out(make, strategy=self.distribute_strategy)

    def once(self, make, *, steps: int):
        """Gives the data set of `make` for passes of so many batches, and what Keras calls `steps`.

        Keras cannot see the length of a distributed data set, so there it is endless.
        """
        if self.num_replicas == 1:
            return self.distributed(make), None
        return self.distributed(lambda share: make(share).repeat()), steps

    def loss_count(self, x, y=None, sample_weight=None):
        """Gives what the mean of `compute_loss` is over, float32: by default the batch's rows.

        Args:
            x, y, sample_weight: a replica's part of a batch.
        """
        return self._loss_kind.masked_count(x, y, sample_weight, None)

    def fit(self, x=None, *args, **kwargs):
        """Trains; see `keras.Model.fit`."""
        if worker_count(self.distribute_strategy) > 1:
            check_order(x, shuffle=kwargs.get("shuffle", True))
        if "validation_data" in kwargs:
            kwargs["validation_data"] = shard_by_rows(kwargs["validation_data"])
        return super().fit(shard_by_rows(x), *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Measures; see `keras.Model.evaluate`."""
        return super().evaluate(shard_by_rows(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Gives the answers to all rows, to every worker; see `keras.Model.predict`."""
        return super().predict(shard_by_rows(x), *args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        """Saves; of several workers the chief alone. See `keras.Model.save`."""
        if self.writes_files():
            super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        """Saves; of several workers the chief alone. See `keras.Model.save_weights`."""
        if self.writes_files():
            super().save_weights(filepath, *args, **kwargs)

    def train_step(self, data):
        """Learns from a batch; see the class."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = self.trainable_weights
        if not variables:
            return self.test_step(data)
        build_optimizer(self.optimizer, variables)
        batch = (x, y, weight)
        if self.gradient_accumulation_steps == 1:
            gradients = self._gradients(batch, variables)
        else:
            total = sum_over_replicas(self.loss_count(x, y, weight))
            gradients = add_over_parts(
                lambda part: self._gradients(part, variables, total=total),
                batch,
                parts=self.gradient_accumulation_steps,
                like=variables,
            )
        self.optimizer.apply_gradients(zip(sum_over_replicas(gradients), variables, strict=True))
        return self.get_metrics_result()

    def _gradients(self, batch, variables, *, total=None):
        """Gives the gradients of a part's share of the global loss, dense; counts it in."""
        x, y, weight = batch
        with tf.GradientTape() as tape:
            answer = self(x, training=True) if self._call_has_training_arg else self(x)
            share = self._share_of_loss(x, y, answer, weight, total=total, training=True)
            scaled = self.optimizer.scale_loss(share)
        found = tape.gradient(scaled, [v.value for v in variables])
        # Dense: slices of an embedding hold a token's gradient in pieces, whose norm is none.
        return [None if g is None else tf.convert_to_tensor(g) for g in found]

    def _share_of_loss(self, x, y, answer, weight, *, total=None, training: bool):
        """Gives this part's share, whose sum over all parts and replicas is the global loss.

        Args:
            x, y, answer, weight: of the part.
            total: what the global mean is over; None where each replica has one part.
            training: whether it is learned from.
        """
        count = self._count(x, y, weight, mask_of(answer), is_part=total is not None)
        total = sum_over_replicas(tf.stop_gradient(count)) if total is None else total
        if self.loss_couples_rows:
            y, answer, weight = across((y, answer, weight))
        loss = self.compute_loss(x=x, y=y, y_pred=answer, sample_weight=weight, training=training)
        replicas = float(self.num_replicas)
        if not (self._loss_kind.is_mean or self.loss_couples_rows):
            return self._share_of_sum(x, y, answer, weight, loss, total=total, training=training)
        if not self.loss_couples_rows:  # an empty part has no mean
            loss = tf.where(count > 0, loss, tf.zeros_like(loss))
        mean = loss * replicas if self.loss_is_scaled else loss
        self._count_loss_in(mean, count)
        self._count_metrics_in(x, y, answer, weight)
        if self.loss_couples_rows:  # the whole loss already, of which each replica moves its part
            return mean - (replicas - 1) / replicas * self._regularization()
        return mean * tf.math.divide_no_nan(tf.cast(count, mean.dtype), tf.cast(total, mean.dtype))

    def _count(self, x, y, weight, mask, *, is_part: bool):
        if mask is None:
            return self.loss_count(x, y, weight)
        if is_part:
            raise InputError(
                "With gradient_accumulation_steps what counts must be known before the model runs, "
                "and this one's layers make masks (Embedding(mask_zero=True), Masking); give "
                "sample_weight instead."
            )
        return self._loss_kind.masked_count(x, y, weight, mask)

    def _share_of_sum(self, x, y, answer, weight, loss, *, total, training: bool):
        """Gives this part's share of a loss that is a sum, with its share of the penalties."""
        parts = self.gradient_accumulation_steps if training else 1
        replicas = float(self.num_replicas)
        share = loss - self._regularization() / replicas * (1 - 1 / parts)
        # Whatever the parts, a batch counts with the sum of its shares.
        self._count_loss_in(share * replicas * parts, total / replicas / parts)
        self._count_metrics_in(x, y, answer, weight)
        return share

    def _regularization(self):
        return tf.add_n([tf.cast(loss, tf.float32) for loss in self.losses]) if self.losses else 0.0

    def _count_loss_in(self, loss, count) -> None:
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=count)

    def _count_metrics_in(self, x, y, answer, weight) -> None:
        # Under a strategy they are there: Keras makes them in `_maybe_symbolic_build`.
        if not (self._metrics_are_made or tf.executing_eagerly() or tf.distribute.has_strategy()):
            build_metrics(self.compute_metrics, x, y, answer, weight, near=self.weights)
            self._metrics_are_made = True
        self.compute_metrics(x, y, answer, sample_weight=weight)

    def test_step(self, data):
        """Measures a batch; see the class."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        answer = self(x, training=False) if self._call_has_training_arg else self(x)
        self._share_of_loss(x, y, answer, weight, training=False)
        return self.get_metrics_result()

    def make_train_function(self, force=False):
        """Makes what `fit` calls for each batch."""
        if self.num_replicas == 1:
            return super().make_train_function(force)
        if self.train_function is None or force:
            expect_summed_gradients(self.optimizer)  # it may be another one by now
            self.train_function = self._over_replicas(self.train_step)
        return self.train_function

    def make_test_function(self, force=False):
        """Makes what `evaluate` calls for each batch."""
        if self.num_replicas == 1:
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._over_replicas(self.test_step)
        return self.test_function

    def _over_replicas(self, step):
        # Keras takes the mean over replicas of what each one has seen, which several workers
        # cannot do; read outside of a replica, the metrics are those of all batches so far.
        strategy = self.distribute_strategy
        replica_step: Any = tf.function(step, jit_compile=True) if self.jit_compile else step

        @tf.autograph.experimental.do_not_convert
        def on_batch(batch):
            strategy.run(replica_step, args=(batch,))
            return self.get_metrics_result()

        @tf.autograph.experimental.do_not_convert
        def on_next(iterator):
            return on_batch(next(iterator))

        if not self.run_eagerly:
            on_next = tf.function(on_next, reduce_retracing=True)
        on_own = on_batch if self.run_eagerly else tf.function(on_batch, reduce_retracing=True)

        def several(iterator):
            if not isinstance(iterator, tf.distribute.DistributedIterator):
                # `train_on_batch` gives a batch of this process.
                return on_own(split_rows(next(iterator), strategy=strategy))
            logs = on_next(iterator)
            for _ in range(self.steps_per_execution - 1):
                try:
                    logs = on_next(iterator)
                except tf.errors.OutOfRangeError:
                    break
            return logs

        return several

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras's own takes the mean over the replicas of a batch, which fails between workers; of
        # the batch only the shapes are wanted. Private, for there is no public hook.
        if self.num_replicas > 1 and iterator is not None:
            data_batch = self._local_batch(iterator)
            iterator = None
        if data_batch is None:
            return super()._maybe_symbolic_build(iterator, data_batch)
        with self.scope():
            self._symbolic_build(data_batch=data_batch)
        return None

    def _local_batch(self, iterator):
        local = self.distribute_strategy.experimental_local_results
        for _, _, batches in iterator:
            return tf.nest.map_structure(lambda value: local(value)[0], next(batches))
        raise InputError("There is no batch to learn from: the data set is empty.")
