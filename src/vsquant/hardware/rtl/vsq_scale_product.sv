// The scale product of two vectors, rounded to PB bits: eq. (8) of docs/learn/definition.md. Combinational.
//
// WSB, ASB: bits in which the weight's and the activation's vector scale are fed; 0 where that side has none (counts as 1).
// PB: bits that are kept, 0 for all of them.  W_TOP: 1 where the weight's scale is fed as sigma - 1.
// SCALE_PRODUCT_BITS: bits of the largest product, as `Lane.scale_product_bits` has it.
module vsq_scale_product #(
    parameter int WSB = 4,
    parameter int ASB = 4,
    parameter int PB = 0,
    parameter int W_TOP = 0,
    parameter int SCALE_PRODUCT_BITS = 8
) (
    input  wire [((WSB > 0) ? WSB : 1)-1:0] sw,
    input  wire [((ASB > 0) ? ASB : 1)-1:0] sa,
    output wire [SCALE_PRODUCT_BITS-1:0]    product
);
  localparam int WEIGHT_BITS = (WSB > 0) ? WSB + W_TOP : 1;
  localparam int ACTIVATION_BITS = (ASB > 0) ? ASB : 1;
  localparam int EXACT_BITS = WEIGHT_BITS + ACTIVATION_BITS;
  localparam int SHIFT = (PB > 0) ? EXACT_BITS - PB : 0;
  localparam int HALF = (SHIFT > 0) ? 1 << (SHIFT - 1) : 0;
  localparam int WEIGHT_MAX = (WSB > 0) ? (1 << WSB) - 1 + W_TOP : 1;
  localparam int ACTIVATION_MAX = (ASB > 0) ? (1 << ASB) - 1 : 1;
  localparam int ROUNDED_MAX = (WEIGHT_MAX * ACTIVATION_MAX + HALF) >> SHIFT;
  localparam int PRODUCT_MAX = (PB > 0 && ROUNDED_MAX > (1 << PB) - 1) ? (1 << PB) - 1 : ROUNDED_MAX;

  wire [EXACT_BITS-1:0] weight_scale, activation_scale;

  generate
    if (SCALE_PRODUCT_BITS != $clog2(PRODUCT_MAX + 1)) begin : g_check
      vsq_scale_product_bits_are_not_those_of_the_largest_product mismatch ();
    end

    if (WSB == 0) begin : g_no_weight_scale
      wire unused_sw = &{1'b0, sw};
      assign weight_scale = EXACT_BITS'(1);
    end else begin : g_weight_scale
      assign weight_scale = EXACT_BITS'(sw) + EXACT_BITS'(W_TOP);
    end

    if (ASB == 0) begin : g_no_activation_scale
      wire unused_sa = &{1'b0, sa};
      assign activation_scale = EXACT_BITS'(1);
    end else begin : g_activation_scale
      assign activation_scale = EXACT_BITS'(sa);
    end
  endgenerate

  wire [EXACT_BITS-1:0] exact = weight_scale * activation_scale;

  generate
    if (SHIFT == 0) begin : g_exact
      if (SCALE_PRODUCT_BITS < EXACT_BITS) begin : g_narrow
        wire unused_top = &{1'b0, exact[EXACT_BITS-1:SCALE_PRODUCT_BITS]};
      end
      assign product = exact[SCALE_PRODUCT_BITS-1:0];
    end else begin : g_rounded
      wire [EXACT_BITS:0] raised = {1'b0, exact} + (EXACT_BITS + 1)'(HALF);
      wire [PB:0] shifted = raised[EXACT_BITS:SHIFT];
      wire unused_dropped = &{1'b0, raised[SHIFT-1:0], shifted[PB]};
      if (ROUNDED_MAX > PRODUCT_MAX) begin : g_saturate
        assign product = shifted[SCALE_PRODUCT_BITS-1:0] | {SCALE_PRODUCT_BITS{shifted[PB]}};
      end else begin : g_fits
        if (SCALE_PRODUCT_BITS < PB) begin : g_narrow
          wire unused_top = &{1'b0, shifted[PB-1:SCALE_PRODUCT_BITS]};
        end
        assign product = shifted[SCALE_PRODUCT_BITS-1:0];
      end
    end
  endgenerate
endmodule
