// Post-processing: sums of V output channels in, E a beat in channel order, the next layer's codes and vector scale
// out. One pipeline that advances as a whole: it waits while a finished vector is not taken, and while a vector that
// was begun lacks its next beat.
`default_nettype none
module vsq_ppu #(
    parameter int V = 16,
    parameter int E = 2,
    parameter int ACC_BITS = 24,
    parameter int MULT_BITS = 16,
    parameter int SHIFT_BITS = 6,
    parameter int BIAS_BITS = 24,
    parameter int T_BITS = 24,
    parameter int FRACTION_BITS = 8,
    parameter int CODE_BITS = 4,
    parameter int CODE_SIGNED = 0,
    parameter int SCALE_BITS = 4,  // 0: no vector scales
    parameter int SCALE_PORT_BITS = (SCALE_BITS > 0) ? SCALE_BITS : 1
) (
    input  wire                        clk,
    input  wire                        rst,
    input  wire                        in_valid,
    output logic                       in_ready,
    input  wire                        in_relu,
    input  wire  [E*ACC_BITS-1:0]      in_sums,
    input  wire  [E*MULT_BITS-1:0]     in_multipliers,
    input  wire  [E*SHIFT_BITS-1:0]    in_shifts,
    input  wire  [E*BIAS_BITS-1:0]     in_biases,
    output logic                       out_valid,
    input  wire                        out_ready,
    output logic [V*CODE_BITS-1:0]     out_codes,
    output logic [SCALE_PORT_BITS-1:0] out_scale  // sigma; 1 without vector scales
);
  localparam int BEATS = V / E;
  localparam int BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1;
  localparam int QMAX_BITS = CODE_BITS - CODE_SIGNED;
  localparam int MAGNITUDE_BITS = T_BITS - 1;
  localparam int SCALE_STAGES = 3;
  localparam int WAIT_STAGES = (SCALE_BITS > 0) ? BEATS + SCALE_BITS + 2 : 0;
  localparam int DIVIDE_STAGES = QMAX_BITS + 1;
  localparam int STAGES = SCALE_STAGES + WAIT_STAGES + DIVIDE_STAGES;

  logic                        advance;
  logic [BEAT_BITS-1:0]        beat;
  logic                        first;
  logic                        last;
  logic [STAGES-1:0]           valids;
  logic [STAGES-1:0]           lasts;
  logic [E*MAGNITUDE_BITS-1:0] magnitudes;
  logic [E-1:0]                negatives;
  logic [E*MAGNITUDE_BITS-1:0] waited_magnitudes;
  logic [E-1:0]                waited_negatives;
  logic [SCALE_PORT_BITS-1:0]  sigma;
  logic [SCALE_PORT_BITS-1:0]  out_sigma;
  logic [E*CODE_BITS-1:0]      codes;
  logic [V*CODE_BITS-1:0]      gathered;

  assign first = beat == '0;
  assign last = beat == BEAT_BITS'(BEATS - 1);
  assign in_ready = !out_valid || out_ready;
  assign advance = in_ready && (in_valid || first);

  always_ff @(posedge clk) begin
    if (rst) begin
      beat <= '0;
      valids <= '0;
    end else if (advance) begin
      if (in_valid) beat <= last ? '0 : beat + 1'b1;
      valids <= {valids[STAGES-2:0], in_valid};
    end
  end

  always_ff @(posedge clk) if (advance) lasts <= {lasts[STAGES-2:0], last};

  for (genvar i = 0; i < E; i++) begin : g_element
    logic signed [T_BITS-1:0] value;

    vsq_ppu_scale #(
        .ACC_BITS(ACC_BITS),
        .MULT_BITS(MULT_BITS),
        .SHIFT_BITS(SHIFT_BITS),
        .BIAS_BITS(BIAS_BITS),
        .T_BITS(T_BITS)
    ) u_scale (
        .clk(clk),
        .enable(advance),
        .relu(in_relu),
        .sum(in_sums[i*ACC_BITS +: ACC_BITS]),
        .multiplier(in_multipliers[i*MULT_BITS +: MULT_BITS]),
        .shift(in_shifts[i*SHIFT_BITS +: SHIFT_BITS]),
        .bias(in_biases[i*BIAS_BITS +: BIAS_BITS]),
        .value(value)
    );

    assign negatives[i] = value[T_BITS-1];
    if (CODE_SIGNED != 0) begin : g_signed
      assign magnitudes[i*MAGNITUDE_BITS +: MAGNITUDE_BITS] = MAGNITUDE_BITS'(negatives[i] ? -value : value);
    end else begin : g_unsigned
      assign magnitudes[i*MAGNITUDE_BITS +: MAGNITUDE_BITS] = value[MAGNITUDE_BITS-1:0] & {MAGNITUDE_BITS{!negatives[i]}};
    end

    vsq_ppu_element #(
        .MAGNITUDE_BITS(MAGNITUDE_BITS),
        .FRACTION_BITS(FRACTION_BITS),
        .QMAX_BITS(QMAX_BITS),
        .SIGMA_BITS(SCALE_PORT_BITS),
        .CODE_BITS(CODE_BITS)
    ) u_element (
        .clk(clk),
        .enable(advance),
        .negative(waited_negatives[i]),
        .magnitude(waited_magnitudes[i*MAGNITUDE_BITS +: MAGNITUDE_BITS]),
        .sigma(sigma),
        .code(codes[i*CODE_BITS +: CODE_BITS])
    );
  end

  if (SCALE_BITS > 0) begin : g_scale
    // The elements wait until their vector's scale is known, and the scale until they are divided by it.
    logic [SCALE_STAGES-1:0] firsts;

    always_ff @(posedge clk) if (advance) firsts <= {firsts[SCALE_STAGES-2:0], first};

    vsq_ppu_sigma #(
        .E(E),
        .MAGNITUDE_BITS(MAGNITUDE_BITS),
        .FRACTION_BITS(FRACTION_BITS),
        .QMAX((1 << QMAX_BITS) - 1),
        .QMAX_BITS(QMAX_BITS),
        .SCALE_BITS(SCALE_BITS)
    ) u_sigma (
        .clk(clk),
        .rst(rst),
        .enable(advance),
        .valid(valids[SCALE_STAGES-1]),
        .first(firsts[SCALE_STAGES-1]),
        .last(lasts[SCALE_STAGES-1]),
        .magnitudes(magnitudes),
        .sigma(sigma)
    );
    vsq_delay #(
        .WIDTH(E * (MAGNITUDE_BITS + 1)),
        .LENGTH(WAIT_STAGES)
    ) u_elements (
        .clk(clk),
        .rst(rst),
        .enable(advance),
        .in({negatives, magnitudes}),
        .out({waited_negatives, waited_magnitudes})
    );
    vsq_delay #(
        .WIDTH(SCALE_BITS),
        .LENGTH(DIVIDE_STAGES)
    ) u_sigmas (
        .clk(clk),
        .rst(rst),
        .enable(advance),
        .in(sigma),
        .out(out_sigma)
    );
  end else begin : g_no_scale
    assign sigma = 1'b1;
    assign out_sigma = 1'b1;
    assign {waited_negatives, waited_magnitudes} = {negatives, magnitudes};
  end

  if (BEATS > 1) begin : g_gather
    logic [V*CODE_BITS-E*CODE_BITS-1:0] earlier;

    assign gathered = {codes, earlier};
    always_ff @(posedge clk) if (advance) earlier <= gathered[V*CODE_BITS-1:E*CODE_BITS];
  end else begin : g_whole
    assign gathered = codes;
  end

  always_ff @(posedge clk) begin
    if (advance && valids[STAGES-1] && lasts[STAGES-1]) begin
      out_codes <= gathered;
      out_scale <= out_sigma;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) out_valid <= 1'b0;
    else if (in_ready) out_valid <= advance && valids[STAGES-1] && lasts[STAGES-1];
  end
endmodule
`default_nettype wire
