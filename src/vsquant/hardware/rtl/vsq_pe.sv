// A processing element: LANES lanes of V multipliers. Weight-stationary: a vector of weights is held in each lane while
// the activation vectors of up to DEPTH positions pass. Local-output-stationary: each lane keeps the sums of those
// positions. Finished sums leave as they are through `sums_*`, or through the post-processing unit and `codes_*`.
// All ports are valid/ready; every buffer and the accumulators are double. LANES, DEPTH, the words of the buffers and E
// are powers of two, and OUT_V divides LANES where there is a post-processing unit.
`default_nettype none
module vsq_pe #(
    parameter int LANES = 16,
    parameter int DEPTH = 16,
    parameter int WEIGHT_WORDS = 16,
    parameter int ACT_WORDS = 256,
    parameter int E = 2,  // sums that leave in one cycle
    // the lane
    parameter int V = 16,
    parameter int WB = 4,
    parameter int AB = 4,
    parameter int A_SIGNED = 0,
    parameter int WSB = 4,  // 0: no vector scales; as ASB
    parameter int ASB = 6,
    parameter int PB = 0,
    parameter int W_TOP = 0,
    parameter int SCALE_PRODUCT_BITS = 10,
    parameter int DOT_BITS = 12,
    parameter int SCALED_BITS = 21,
    parameter int ACC_BITS = 29,
    parameter int MAX_VECTORS = 256,
    // post-processing
    parameter int HAS_PPU = 1,
    parameter int OUT_V = 16,  // output channels that share a scale
    parameter int MULT_BITS = 16,
    parameter int SHIFT_BITS = 6,
    parameter int BIAS_BITS = 24,
    parameter int T_BITS = 24,
    parameter int FRACTION_BITS = 8,
    parameter int CODE_BITS = 4,
    parameter int CODE_SIGNED = 0,
    parameter int SCALE_BITS = 6,
    // derived
    parameter int WSW = (WSB > 0) ? WSB : 1,
    parameter int ASW = (ASB > 0) ? ASB : 1,
    parameter int SCALE_PORT_BITS = (SCALE_BITS > 0) ? SCALE_BITS : 1,
    parameter int CONSTANT_BITS = MULT_BITS + SHIFT_BITS + BIAS_BITS,
    parameter int LANE_BITS = (LANES > 1) ? $clog2(LANES) : 1,
    parameter int POSITION_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1,
    parameter int WEIGHT_WORD_BITS = (WEIGHT_WORDS > 1) ? $clog2(WEIGHT_WORDS) : 1,
    parameter int ACT_WORD_BITS = (ACT_WORDS > 1) ? $clog2(ACT_WORDS) : 1,
    parameter int BEATS = LANES / E,
    parameter int BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1
) (
    input  wire                         clk,
    input  wire                         rst,
    // one tile: see vsq_sequencer
    input  wire                         command_valid,
    output logic                        command_ready,
    input  wire  [POSITION_BITS-1:0]    command_last_position,
    input  wire  [WEIGHT_WORD_BITS-1:0] command_last_vector,
    input  wire                         command_drain,
    input  wire                         command_requantize,
    input  wire                         command_relu,
    input  wire                         command_free_weights,
    input  wire                         command_free_activations,
    input  wire                         command_free_constants,
    // one lane's vector a beat
    input  wire                         weights_valid,
    output logic                        weights_ready,
    input  wire                         weights_last,
    input  wire  [V*WB-1:0]             weights_codes,
    input  wire  [WSW-1:0]              weights_scale,
    // one position's vector a beat
    input  wire                         activations_valid,
    output logic                        activations_ready,
    input  wire                         activations_last,
    input  wire  [V*AB-1:0]             activations_codes,
    input  wire  [ASW-1:0]              activations_scale,
    // one output channel a beat: {bias, shift, multiplier}
    input  wire                         constants_valid,
    output logic                        constants_ready,
    input  wire                         constants_last,
    input  wire  [CONSTANT_BITS-1:0]    constants_data,
    // E lanes' sums of one position a beat
    output logic                        sums_valid,
    input  wire                         sums_ready,
    output logic [E*ACC_BITS-1:0]       sums_data,
    output logic                        sums_last,
    output logic                        sums_partial,
    // one vector of OUT_V output channels of one position a beat
    output logic                        codes_valid,
    input  wire                         codes_ready,
    output logic [OUT_V*CODE_BITS-1:0]  codes_data,
    output logic [SCALE_PORT_BITS-1:0]  codes_scale
);
  localparam int MAC_STAGES = 3;           // registers of vsq_vector_mac
  localparam int STAGES = 1 + MAC_STAGES;  // from the read of an operand to its arrival at the accumulators
  localparam int TAG_BITS = POSITION_BITS + 6;

  logic                        weights_available;
  logic                        activations_available;
  logic                        constants_available;
  logic                        read;
  logic                        read_weights;
  logic                        read_constants;
  logic [WEIGHT_WORD_BITS-1:0] weight_word;
  logic [ACT_WORD_BITS-1:0]    activation_word;
  logic [BEAT_BITS-1:0]        constants_word;
  logic                        free_weights;
  logic                        free_activations;
  logic                        free_constants;
  logic [LANE_BITS-1:0]        weights_lane;
  logic [WEIGHT_WORD_BITS:0]   weights_address;
  logic                        weights_bank;
  logic [V*AB-1:0]             codes;
  logic [ASW-1:0]              scale;
  logic                        operands_valid;
  logic                        load_weights;
  logic [LANES*ACC_BITS-1:0]   sums;
  logic [POSITION_BITS:0]      drain_address;
  logic [1:0]                  drained;
  logic                        out_valid;
  logic                        out_ready;
  logic [E*ACC_BITS-1:0]       out_sums;
  logic                        out_requantize;
  logic                        out_relu;
  logic                        ppu_ready;

  // What the sequencer says of an operand, and beside the operand on its way to the accumulators.
  logic [POSITION_BITS:0]      sum_address;
  logic                        first;
  logic                        finish;
  logic                        finish_partial;
  logic [2:0]                  finish_how;
  logic [STAGES-1:0]           finishes;
  logic [STAGES*TAG_BITS-1:0]  tags;
  logic [POSITION_BITS:0]      arrived_address;
  logic                        arrived_first;
  logic                        arrived_partial;
  logic [2:0]                  arrived_how;

  vsq_sequencer #(
      .DEPTH(DEPTH),
      .WEIGHT_WORDS(WEIGHT_WORDS),
      .ACT_WORDS(ACT_WORDS),
      .MAX_VECTORS(MAX_VECTORS)
  ) u_sequencer (
      .clk(clk),
      .rst(rst),
      .command_valid(command_valid),
      .command_ready(command_ready),
      .command_last_position(command_last_position),
      .command_last_vector(command_last_vector),
      .command_drain(command_drain),
      .command_drain_how({command_requantize, command_relu, command_free_constants}),
      .command_free_weights(command_free_weights),
      .command_free_activations(command_free_activations),
      .weights_available(weights_available),
      .activations_available(activations_available),
      .read(read),
      .read_weights(read_weights),
      .weight_word(weight_word),
      .activation_word(activation_word),
      .free_weights(free_weights),
      .free_activations(free_activations),
      .drained(drained),
      .sum_address(sum_address),
      .first(first),
      .finish(finish),
      .finish_partial(finish_partial),
      .finish_how(finish_how)
  );

  assign {arrived_address, arrived_first, arrived_partial, arrived_how} = tags[STAGES*TAG_BITS-1 -: TAG_BITS];

  always_ff @(posedge clk)
    tags <= {tags[(STAGES-1)*TAG_BITS-1:0], sum_address, first, finish_partial, finish_how};

  always_ff @(posedge clk) begin
    if (rst) begin
      finishes <= '0;
      operands_valid <= 1'b0;
      load_weights <= 1'b0;
    end else begin
      finishes <= {finishes[STAGES-2:0], finish};
      operands_valid <= read;
      load_weights <= read_weights;
    end
  end

  vsq_bank_control #(
      .SLICES(LANES),
      .WORDS(WEIGHT_WORDS)
  ) u_weight_banks (
      .clk(clk),
      .rst(rst),
      .load_valid(weights_valid),
      .load_ready(weights_ready),
      .load_last(weights_last),
      .slice(weights_lane),
      .write_address(weights_address),
      .free(free_weights),
      .available(weights_available),
      .read_bank(weights_bank)
  );

  vsq_pe_activations #(
      .WORDS(ACT_WORDS),
      .CODES_BITS(V * AB),
      .ASB(ASB)
  ) u_activations (
      .clk(clk),
      .rst(rst),
      .load_valid(activations_valid),
      .load_ready(activations_ready),
      .load_last(activations_last),
      .load_codes(activations_codes),
      .load_scale(activations_scale),
      .free(free_activations),
      .available(activations_available),
      .read(read),
      .read_word(activation_word),
      .codes(codes),
      .scale(scale)
  );

  vsq_pe_lanes #(
      .LANES(LANES),
      .DEPTH(DEPTH),
      .WEIGHT_WORDS(WEIGHT_WORDS),
      .V(V),
      .WB(WB),
      .AB(AB),
      .A_SIGNED(A_SIGNED),
      .WSB(WSB),
      .ASB(ASB),
      .PB(PB),
      .W_TOP(W_TOP),
      .SCALE_PRODUCT_BITS(SCALE_PRODUCT_BITS),
      .DOT_BITS(DOT_BITS),
      .SCALED_BITS(SCALED_BITS),
      .ACC_BITS(ACC_BITS)
  ) u_lanes (
      .clk(clk),
      .rst(rst),
      .write(weights_valid && weights_ready),
      .write_lane(weights_lane),
      .write_address(weights_address),
      .write_codes(weights_codes),
      .write_scale(weights_scale),
      .read(read_weights),
      .read_address({weights_bank, weight_word}),
      .load_weights(load_weights),
      .activations_valid(operands_valid),
      .activations(codes),
      .activation_scale(scale),
      .first(arrived_first),
      .sum_address(arrived_address),
      .drain_address(drain_address),
      .sums(sums)
  );

  vsq_drain #(
      .LANES(LANES),
      .E(E),
      .ACC_BITS(ACC_BITS),
      .DEPTH(DEPTH)
  ) u_drain (
      .clk(clk),
      .rst(rst),
      .finished(finishes[STAGES-1]),
      .finished_bank(arrived_address[POSITION_BITS]),
      .finished_last_position(arrived_address[POSITION_BITS-1:0]),
      .finished_partial(arrived_partial),
      .finished_how(arrived_how),
      .read_address(drain_address),
      .sums(sums),
      .drained(drained),
      .constants_available(constants_available),
      .read_constants(read_constants),
      .constants_word(constants_word),
      .free_constants(free_constants),
      .out_valid(out_valid),
      .out_ready(out_ready),
      .out_sums(out_sums),
      .out_last(sums_last),
      .out_partial(sums_partial),
      .out_requantize(out_requantize),
      .out_relu(out_relu)
  );

  assign sums_valid = out_valid && !out_requantize;
  assign sums_data = out_sums;
  assign out_ready = out_requantize ? ppu_ready : sums_ready;

  if (HAS_PPU != 0) begin : g_ppu
    logic [E*CONSTANT_BITS-1:0] constants;
    logic [E*MULT_BITS-1:0]     multipliers;
    logic [E*SHIFT_BITS-1:0]    shifts;
    logic [E*BIAS_BITS-1:0]     biases;

    for (genvar i = 0; i < E; i++) begin : g_channel
      assign {biases[i*BIAS_BITS +: BIAS_BITS], shifts[i*SHIFT_BITS +: SHIFT_BITS],
              multipliers[i*MULT_BITS +: MULT_BITS]} = constants[i*CONSTANT_BITS +: CONSTANT_BITS];
    end

    vsq_pe_constants #(
        .LANES(LANES),
        .E(E),
        .WIDTH(CONSTANT_BITS)
    ) u_constants (
        .clk(clk),
        .rst(rst),
        .load_valid(constants_valid),
        .load_ready(constants_ready),
        .load_last(constants_last),
        .load_data(constants_data),
        .free(free_constants),
        .available(constants_available),
        .read(read_constants),
        .read_word(constants_word),
        .data(constants)
    );

    vsq_ppu #(
        .V(OUT_V),
        .E(E),
        .ACC_BITS(ACC_BITS),
        .MULT_BITS(MULT_BITS),
        .SHIFT_BITS(SHIFT_BITS),
        .BIAS_BITS(BIAS_BITS),
        .T_BITS(T_BITS),
        .FRACTION_BITS(FRACTION_BITS),
        .CODE_BITS(CODE_BITS),
        .CODE_SIGNED(CODE_SIGNED),
        .SCALE_BITS(SCALE_BITS)
    ) u_ppu (
        .clk(clk),
        .rst(rst),
        .in_valid(out_valid && out_requantize),
        .in_ready(ppu_ready),
        .in_relu(out_relu),
        .in_sums(out_sums),
        .in_multipliers(multipliers),
        .in_shifts(shifts),
        .in_biases(biases),
        .out_valid(codes_valid),
        .out_ready(codes_ready),
        .out_codes(codes_data),
        .out_scale(codes_scale)
    );
  end else begin : g_no_ppu
    // Without the unit nothing may ask for it: sums that were to be post-processed would wait forever.
    wire unused = &{1'b0, constants_valid, constants_last, constants_data, codes_ready, out_relu, read_constants,
                    constants_word, free_constants};
    assign constants_available = 1'b0;
    assign constants_ready = 1'b0;
    assign ppu_ready = 1'b0;
    assign codes_valid = 1'b0;
    assign codes_data = '0;
    assign codes_scale = '0;
  end
endmodule
`default_nettype wire
