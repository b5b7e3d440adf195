//! The arithmetic: the few operations of a Llama network, each with one result for one input.
//!
//! Rules of the numeric profile `blf-f32-v1`:
//! - float32 multiplication and addition, rounded after each (no fused multiply-add, which not every build has);
//! - a dot product has [`LANES`] running sums, element i going to sum i mod [`LANES`] in ascending order, and the sums are folded
//!   in halves; all products of a network and the norm are such dot products;
//! - a softmax takes keys in ascending order, in one sum;
//! - exp, sin and cos are those of the `libm` crate, which is the same code everywhere; sqrt and division are exact by IEEE 754.
//!
//! Work is split over threads by output element only. Nothing depends on how many rows are computed together.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, InplaceOp1, Layout, Result, Shape, Tensor, bail,
};
use half::bf16;
use rayon::prelude::*;
use zeroize::Zeroize;

/// Running sums of a dot product.
pub(crate) const LANES: usize = 32;

/// Rows `ids` of an embedding table.
pub(crate) fn embed(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    table.apply_op1_no_bwd(&Embed { ids })
}

/// `x · weightᵀ`: x is [rows, in], weight [out, in].
pub(crate) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2_no_bwd(weight, &Linear)
}

/// `x / sqrt(mean(x²) + eps) · gain`, per row.
pub(crate) fn rms_norm(x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2_no_bwd(gain, &RmsNorm { eps })
}

/// Turns each head of each row by the row's position; `angles` is [context, head_dim]: cosines, then sines.
pub(crate) fn rope(x: &Tensor, angles: &Tensor, position: usize) -> Result<Tensor> {
    x.apply_op2_no_bwd(angles, &Rope { position })
}

/// Causal attention of the rows `q`, the first of them at `position`, over the cached keys and values up to each row's own.
/// Query heads share key heads evenly.
pub(crate) fn attend(q: &Tensor, keys: &Tensor, values: &Tensor, head_dim: usize, position: usize) -> Result<Tensor> {
    q.apply_op3_no_bwd(keys, values, &Attend { head_dim, position })
}

/// `silu(gate) · up`, element by element.
pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2_no_bwd(up, &SwiGlu)
}

/// `a + b`, element by element.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.apply_op2_no_bwd(b, &Add)
}

/// Overwrites a tensor's memory, all of it, whatever part `x` is a view of.
pub(crate) fn wipe(x: &Tensor) -> Result<()> {
    x.inplace_op1(&Wipe)
}

/// The numbers of a tensor.
pub(crate) fn floats(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

struct Embed<'a> {
    ids: &'a [u32],
}

impl CustomOp1 for Embed<'_> {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let table = Weights::of(table, layout)?;
        let mut out = vec![0.0; self.ids.len() * width];
        for (out, id) in out.chunks_exact_mut(width).zip(self.ids) {
            let row = usize::try_from(*id).ok().filter(|row| *row < rows);
            let Some(row) = row else { bail!("embed: token out of range") };
            table.row(row, width).write_to(out);
        }
        Ok((CpuStorage::F32(out), (self.ids.len(), width).into()))
    }
}

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (outs, w_width)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        if width != w_width || width == 0 || rows == 0 {
            bail!("linear: [{rows}, {width}] by [{outs}, {w_width}]");
        }
        let x = f32s(x, xl)?;
        let weights = Weights::of(w, wl)?;
        // By column of the result: a row of the weights is read once and used for every row of x.
        let mut columns = vec![0.0f32; outs * rows];
        let per_task = (WORK / (width * rows)).max(1);
        columns.par_chunks_mut(per_task * rows).enumerate().for_each_init(
            || vec![0.0f32; if rows > 1 { width } else { 0 }],
            |unpacked, (task, columns)| {
                for (i, column) in columns.chunks_exact_mut(rows).enumerate() {
                    let weights = weights.row(task * per_task + i, width);
                    match (column, weights) {
                        ([one], weights) => *one = weights.dot(x),
                        (column, Row::F32(weights)) => dots(column, x, weights),
                        (column, weights) => {
                            weights.write_to(unpacked);
                            dots(column, x, unpacked);
                        }
                    }
                }
            },
        );
        if rows == 1 {
            return Ok((CpuStorage::F32(columns), (1, outs).into()));
        }
        let mut out = vec![0.0; outs * rows];
        for (row, out) in out.chunks_exact_mut(outs).enumerate() {
            for (out, column) in out.iter_mut().zip(columns.chunks_exact(rows)) {
                *out = column[row];
            }
        }
        columns.zeroize();
        Ok((CpuStorage::F32(out), (rows, outs).into()))
    }
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    #[allow(clippy::cast_precision_loss)] // widths are below 2^24
    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, gain: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), gain_width) = (xl.shape().dims2()?, gl.shape().dims1()?);
        if width != gain_width || width == 0 {
            bail!("rms_norm: width {width} by {gain_width}");
        }
        let (x, gain) = (f32s(x, xl)?, f32s(gain, gl)?);
        let mut out = vec![0.0; rows * width];
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = 1.0 / (dot(x, x) / width as f32 + self.eps).sqrt();
            for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
                *out = *x * scale * *gain;
            }
        }
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }
}

struct Rope {
    position: usize,
}

impl CustomOp2 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, angles: &CpuStorage, al: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (context, head_dim)) = (xl.shape().dims2()?, al.shape().dims2()?);
        if head_dim == 0 || !width.is_multiple_of(head_dim) || rows > context.saturating_sub(self.position) {
            bail!("rope: [{rows}, {width}] from {} by [{context}, {head_dim}]", self.position);
        }
        let half = head_dim / 2;
        let angles = f32s(angles, al)?.chunks_exact(head_dim).skip(self.position);
        let mut out = f32s(x, xl)?.to_vec();
        for (row, angles) in out.chunks_exact_mut(width).zip(angles) {
            let (cos, sin) = angles.split_at(half);
            for head in row.chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * *cos - *b * *sin, *b * *cos + *a * *sin);
                }
            }
        }
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }
}

struct Attend {
    head_dim: usize,
    position: usize,
}

impl CustomOp3 for Attend {
    fn name(&self) -> &'static str {
        "attend"
    }

    #[allow(clippy::cast_precision_loss)] // head_dim is below 2^24
    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        keys: &CpuStorage,
        kl: &Layout,
        values: &CpuStorage,
        vl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (context, kv_width), dim) = (ql.shape().dims2()?, kl.shape().dims2()?, self.head_dim);
        let fits = dim > 0 && width.is_multiple_of(dim) && kv_width.is_multiple_of(dim) && kv_width > 0;
        if !fits || vl.shape().dims2()? != (context, kv_width) || rows > context.saturating_sub(self.position) {
            bail!("attend: [{rows}, {width}] from {} over [{context}, {kv_width}]", self.position);
        }
        let (heads, kv_heads) = (width / dim, kv_width / dim);
        if !heads.is_multiple_of(kv_heads) || heads == 0 {
            bail!("attend: {heads} heads over {kv_heads}");
        }
        let (q, keys, values) = (f32s(q, ql)?, f32s(keys, kl)?, f32s(values, vl)?);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut out = vec![0.0f32; rows * width];
        out.par_chunks_mut(dim).zip(q.par_chunks(dim)).enumerate().for_each_init(Vec::new, |scores, (i, (out, q))| {
            let (row, head) = (i / heads, i % heads);
            let from = head / (heads / kv_heads) * dim;
            let seen = self.position + row + 1;
            let mut highest = f32::NEG_INFINITY;
            for key in keys.chunks_exact(kv_width).take(seen) {
                let score = dot(q, &key[from..from + dim]) * scale;
                highest = highest.max(score);
                scores.push(score);
            }
            let mut sum = 0.0f32;
            for (score, value) in scores.iter().zip(values.chunks_exact(kv_width)) {
                let weight = libm::expf(*score - highest);
                sum += weight;
                for (out, value) in out.iter_mut().zip(&value[from..from + dim]) {
                    *out += weight * *value;
                }
            }
            for out in out {
                *out /= sum;
            }
            scores.zeroize(); // clears it too
        });
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, gl: &Layout, up: &CpuStorage, ul: &Layout) -> Result<(CpuStorage, Shape)> {
        pairwise(gate, gl, up, ul, |gate, up| gate / (1.0 + libm::expf(-gate)) * up)
    }
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        pairwise(a, al, b, bl, |a, b| a + b)
    }
}

struct Wipe;

impl InplaceOp1 for Wipe {
    fn name(&self) -> &'static str {
        "wipe"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        match storage {
            CpuStorage::F32(values) => values.as_mut_slice().zeroize(),
            _ => bail!("wipe: only float32 is ever computed"),
        }
        Ok(())
    }
}

fn pairwise(
    a: &CpuStorage,
    al: &Layout,
    b: &CpuStorage,
    bl: &Layout,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<(CpuStorage, Shape)> {
    if al.shape() != bl.shape() {
        bail!("shapes {:?} and {:?}", al.shape(), bl.shape());
    }
    let (a, b) = (f32s(a, al)?, f32s(b, bl)?);
    let mut out = vec![0.0; a.len()];
    out.par_chunks_mut(WORK / 4).zip(a.par_chunks(WORK / 4)).zip(b.par_chunks(WORK / 4)).for_each(|((out, a), b)| {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = f(*a, *b);
        }
    });
    Ok((CpuStorage::F32(out), al.shape().clone()))
}

fn f32s<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = contiguous(layout)?;
    storage.as_slice::<f32>()?.get(start..end).ok_or_else(|| Error::Msg("layout beyond its storage".into()))
}

fn contiguous(layout: &Layout) -> Result<(usize, usize)> {
    layout.contiguous_offsets().ok_or_else(|| Error::Msg("operand is not contiguous".into()))
}

/// A matrix as it is stored.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Bf16(&'a [bf16]),
    F32(&'a [f32]),
}

/// One row of it.
#[derive(Clone, Copy)]
enum Row<'a> {
    Bf16(&'a [bf16]),
    F32(&'a [f32]),
}

impl<'a> Weights<'a> {
    fn of(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (start, end) = contiguous(layout)?;
        let weights = match storage {
            CpuStorage::BF16(values) => values.get(start..end).map(Self::Bf16),
            CpuStorage::F32(values) => values.get(start..end).map(Self::F32),
            _ => None,
        };
        weights.ok_or_else(|| Error::Msg("weights are neither bfloat16 nor float32".into()))
    }

    /// Row `row` of `width` columns; the caller stays within the matrix.
    fn row(self, row: usize, width: usize) -> Row<'a> {
        match self {
            Self::Bf16(values) => Row::Bf16(&values[row * width..(row + 1) * width]),
            Self::F32(values) => Row::F32(&values[row * width..(row + 1) * width]),
        }
    }
}

impl Row<'_> {
    fn write_to(self, out: &mut [f32]) {
        match self {
            Self::Bf16(values) => out.iter_mut().zip(values).for_each(|(out, value)| *out = widen(*value)),
            Self::F32(values) => out.copy_from_slice(values),
        }
    }

    fn dot(self, x: &[f32]) -> f32 {
        match self {
            Self::Bf16(values) => lanes(x, values, widen),
            Self::F32(values) => dot(x, values),
        }
    }
}

/// One dot product of `weights` with each row of `x`.
fn dots(out: &mut [f32], x: &[f32], weights: &[f32]) {
    for (out, x) in out.iter_mut().zip(x.chunks_exact(weights.len())) {
        *out = dot(x, weights);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |b| b)
}

/// The dot product of the numeric profile; `b` is read through `widen`, which is exact.
#[inline(always)]
fn lanes<B: Copy>(a: &[f32], b: &[B], widen: impl Fn(B) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += *a * widen(*b);
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += *a * widen(*b);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        let (low, high) = sums.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
    }
    sums[0]
}

/// bfloat16 is the upper half of a float32.
fn widen(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// Multiplications that are worth a task of their own.
const WORK: usize = 1 << 15;
